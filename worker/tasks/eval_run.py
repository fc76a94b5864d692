"""Runs an eval: answers its items, grades the answers, and stores the results as they come.

An attempt continues where the last one stopped: the items that have results are left out.
"""

from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from core.catalog.external import BadEndpoints, Endpoints
from core.datasets.eval_items import item_rows
from core.errors import NotFound
from core.records.eval_progress import (
    ItemResult,
    add_results,
    begin_run,
    done_items,
    end_run,
)
from core.spec.evals import FINAL, EvalRunRequest, EvalRunResult
from core.spec.ids import EvalRunId
from worker.answering.background import background_of
from worker.answering.external import ExternalClient
from worker.answering.journal import Journal
from worker.answering.models import NamedModels
from worker.answering.working import work_through
from worker.coroutines import Interrupted, run_unless
from worker.evals.items import Items
from worker.judges import WorkerJudges
from worker.outages.commit import commit
from worker.tasks.attempt import Attempt

ITEMS = "items.jsonl"
"""In the folder of an attempt."""


def run(attempt: Attempt) -> EvalRunResult:
    run = EvalRunRequest.model_validate(attempt.payload)
    run_id, claim = EvalRunId(run.run_id), attempt.claim
    status = commit(attempt.database, lambda session: begin_run(session, claim, run_id))
    if status not in FINAL:  # an earlier attempt may have died before the end of its task
        error = _worked(attempt, run)
        status = commit(attempt.database, lambda session: end_run(session, claim, run_id, error))
    return EvalRunResult(status=status)


def _worked(attempt: Attempt, run: EvalRunRequest) -> dict[str, Any] | None:
    """Make the results that are missing; return why the run itself cannot have them."""
    try:
        attempt.store.fetch(run.blob_key, attempt.folder / ITEMS)
        endpoints = Endpoints.load(attempt.settings.endpoints_file)
        _work(attempt, run, endpoints)
    except BadEndpoints as error:
        return {"code": "external_endpoint_error", "message": f"The workers' settings: {error}"}
    except NotFound as error:
        return {"code": error.code, "message": error.message}
    return None


def _work(attempt: Attempt, run: EvalRunRequest, endpoints: Endpoints) -> None:
    """Raises Interrupted if the worker stops."""
    run_id = EvalRunId(run.run_id)
    with attempt.database.reading() as session:
        done = done_items(session, run_id)
    journal = Journal[ItemResult](
        attempt.database,
        lambda session, results: add_results(session, attempt.claim, run_id, results),
    )
    rows = _rows(attempt.folder / ITEMS, done)
    try:
        run_unless(attempt.should_stop, _work_through(attempt, run, rows, journal, endpoints))
    except Interrupted:
        journal.store()
        raise
    journal.store()


async def _work_through(
    attempt: Attempt,
    run: EvalRunRequest,
    rows: Iterator[tuple[int, Mapping[str, Any]]],
    journal: Journal[ItemResult],
    endpoints: Endpoints,
) -> None:
    settings, project = attempt.settings, attempt.claim.project_id
    background = background_of(attempt.database, settings.engine_key)
    external = ExternalClient(endpoints)
    models = NamedModels(run.models, project, background, external)
    items = Items(run, models, WorkerJudges(models, settings.grader_limits))
    try:
        await background.during(work_through(rows, items.result, journal))
    finally:
        await external.close()


def _rows(path: Path, done: Container[int]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, row in enumerate(item_rows(path)):
        if number not in done:
            yield number, row
