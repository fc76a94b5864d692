"""The writes of the worker that runs an eval, each under the claim of its task.

Results are stored in groups. A group is stored with its counts in one transaction, so an item has
one result or none, whatever happens to the worker.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from sqlalchemy import exists, insert, select
from sqlalchemy.orm import Session

from core.records import leases
from core.records.database import database_now
from core.records.eval_runs import EVAL_RUN
from core.records.ids import new_eval_item_id
from core.records.model_usage import ModelUsage, added_usage
from core.records.tables import EvalRun, EvalRunItem, Task
from core.records.tasks import TaskClaim
from core.spec.evals import EvalRunStatus, ItemStatus
from core.spec.ids import EvalRunId

ORDER_SECONDS = 1e-6
"""Between two results of a group, so that a list has them in their order."""


@dataclass(frozen=True)
class ItemResult:
    """One item: its place in the source, what it adds to the counts, and what its owner sees."""

    number: int
    status: ItemStatus
    passed: Sequence[bool | None]
    """Of each criterion; None if its grader failed, or did not run."""
    usage: Sequence[ModelUsage]
    body: Mapping[str, Any]


def begin_run(session: Session, claim: TaskClaim, run_id: EvalRunId) -> EvalRunStatus:
    """Begin or resume a run; return its status."""
    run = _held(session, claim, run_id)
    if run.status == EvalRunStatus.QUEUED:
        run.status = EvalRunStatus.IN_PROGRESS
    return EvalRunStatus(run.status)


def done_items(session: Session, run_id: EvalRunId) -> set[int]:
    """Return the numbers of the items that have results."""
    return set(session.scalars(select(EvalRunItem.number).where(EvalRunItem.run_id == run_id)))


def add_results(
    session: Session, claim: TaskClaim, run_id: EvalRunId, results: Sequence[ItemResult]
) -> None:
    """Store a group of results; idempotent, because a commit may be repeated.

    An attempt that gets this far is no crash loop, so the earlier attempts no longer count.
    """
    leases.hold(session, claim, attempts=1)
    is_first = (EvalRunItem.run_id == run_id, EvalRunItem.number == results[0].number)
    if session.scalars(select(EvalRunItem.id).where(*is_first)).first() is not None:
        return
    run = session.scalars(select(EvalRun).where(EvalRun.id == run_id).with_for_update()).one()
    now = time.time()
    rows = [
        {
            "id": new_eval_item_id(),
            "project_id": claim.project_id,
            "created_at": now + number * ORDER_SECONDS,
            "run_id": run_id,
            "number": each.number,
            "status": each.status,
            "bytes": len(to_json(each.body)),
            "body": each.body,
        }
        for number, each in enumerate(results)
    ]
    session.execute(insert(EvalRunItem), rows)
    _count(run, results)


def end_run(
    session: Session, claim: TaskClaim, run_id: EvalRunId, error: dict[str, Any] | None = None
) -> EvalRunStatus:
    """End a run, as failed if there is an error of the run itself. Idempotent."""
    run = _held(session, claim, run_id)
    if run.finished_at is None:
        run.status = EvalRunStatus.COMPLETED if error is None else EvalRunStatus.FAILED
        run.error = error
        run.finished_at = time.time()
    return EvalRunStatus(run.status)


def fail_abandoned_runs(session: Session) -> Sequence[EvalRunId]:
    """Fail the runs whose task has failed for good; return their ids."""
    is_alive = exists().where(
        Task.kind == EVAL_RUN, Task.subject == EvalRun.id, Task.finished_at.is_(None)
    )
    runs = session.scalars(
        select(EvalRun).where(EvalRun.finished_at.is_(None), ~is_alive).with_for_update()
    ).all()
    for run in runs:
        error = session.scalars(
            select(Task.error).where(Task.kind == EVAL_RUN, Task.subject == run.id)
        ).first() or {"code": "worker_lost", "message": "The task of the run is gone."}
        run.status = EvalRunStatus.FAILED
        run.error = {"code": error["code"], "message": error["message"]}
        run.finished_at = session.scalars(select(database_now())).one()
    return [run.id for run in runs]


def _count(run: EvalRun, results: Sequence[ItemResult]) -> None:
    counts = [dict(count) for count in run.criteria_counts]
    for result in results:
        run.passed += result.status == "pass"
        run.failed += result.status == "fail"
        run.errored += result.status == "error"
        for count, passed in zip(counts, result.passed, strict=True):
            if passed is not None:
                count["passed" if passed else "failed"] += 1
    run.criteria_counts = counts
    run.usage = added_usage(run.usage, (each for result in results for each in result.usage))


def _held(session: Session, claim: TaskClaim, run_id: EvalRunId) -> EvalRun:
    """Return the run, locked, under the claim; StaleClaim if the claim has ended."""
    leases.hold(session, claim)
    return session.scalars(select(EvalRun).where(EvalRun.id == run_id).with_for_update()).one()
