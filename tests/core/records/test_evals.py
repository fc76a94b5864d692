"""Evals and runs in the database: what a worker writes under its claim, and what owners do when."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound, StaleClaim
from core.records import tasks
from core.records.database import Database
from core.records.eval_progress import (
    ItemResult,
    ModelUsage,
    add_results,
    begin_run,
    done_items,
    end_run,
    fail_abandoned_runs,
)
from core.records.eval_runs import (
    EVAL_RUN,
    NewEvalRun,
    cancel_run,
    create_run,
    delete_run,
    get_run,
    items_from,
    list_items,
    list_runs,
)
from core.records.evals import NewEval, create_eval, delete_eval, list_evals, update_eval
from core.records.files import delete_file, expired_files
from core.records.ids import new_eval_run_id
from core.records.tables import EvalRun, EvalRunItem, File, Task
from core.records.tasks import TaskClaim
from core.spec.evals import EvalRunRequest, EvalRunStatus
from core.spec.grader import StringCheckGrader

PROJECT = "default"
GRADER = StringCheckGrader(name="exact", input="a", reference="a", operation="eq")
CONFIG = {"type": "custom", "item_schema": {}, "include_sample_schema": False}


def new_eval(project: str = PROJECT, name: str | None = None) -> NewEval:
    criterion = GRADER.model_dump(mode="json")
    return NewEval(project, name, None, CONFIG, [criterion, criterion])


def new_run(eval_id: str, file_id: str | None, project: str = PROJECT) -> NewEvalRun:
    source = {"type": "jsonl"}
    id_ = new_eval_run_id()
    return NewEvalRun(project, eval_id, id_, None, None, None, source, file_id, 9, ["a"])


def request_of(run: NewEvalRun) -> EvalRunRequest:
    return EvalRunRequest(
        run_id=run.id, blob_key="evals/x", criteria=(GRADER, GRADER), sampling=None, models={}
    )


@pytest.fixture
def file_id(make_file: Callable[..., str]) -> str:
    return make_file(purpose="evals")


@pytest.fixture
def run(database: Database, file_id: str) -> EvalRun:
    with database.writing() as session:
        eval_ = create_eval(session, new_eval())
        new = new_run(eval_.id, file_id)
        return create_run(session, new, request_of(new))[0]


def claimed(database: Database) -> TaskClaim:
    with database.writing() as session:
        claim = tasks.claim_next(session, "worker-1", [EVAL_RUN])
    assert claim is not None
    return claim


def begun(database: Database, run: EvalRun) -> TaskClaim:
    claim = claimed(database)
    with database.writing() as session:
        assert begin_run(session, claim, run.id) is EvalRunStatus.IN_PROGRESS
    return claim


def result(number: int, status: Any, *passed: bool | None) -> ItemResult:
    usage = ModelUsage(
        model_name="tiny",
        invocation_count=1,
        prompt_tokens=3,
        completion_tokens=2,
        total_tokens=5,
        cached_tokens=0,
    )
    body = {"datasource_item": {"a": number, "NUL": "\x00é"}}
    return ItemResult(number, status, passed, [usage], body)


def row(session: Session, run: EvalRun) -> EvalRun:
    return session.scalars(select(EvalRun).where(EvalRun.id == run.id)).one()


def test_results_are_counted_with_their_rows(database: Database, run: EvalRun) -> None:
    claim = begun(database, run)
    groups = [
        [result(2, "pass", True, True), result(0, "fail", True, False)],
        [result(1, "error", False, None), result(3, "error", None, None)],
    ]
    for group in groups:
        with database.writing() as session:
            add_results(session, claim, run.id, group)
    with database.writing() as session:  # the answer to the commit was lost
        add_results(session, claim, run.id, groups[1])
    with database.reading() as session:
        assert done_items(session, run.id) == {0, 1, 2, 3}
        found = row(session, run)
        assert (found.passed, found.failed, found.errored) == (1, 1, 2)
        assert found.criteria_counts == [{"passed": 2, "failed": 1}, {"passed": 1, "failed": 1}]
        [usage] = found.usage
        assert (usage["invocation_count"], usage["total_tokens"]) == (4, 20)
        stored = list_items(
            session, PROJECT, run.id, status=None, after=None, limit=9, order="asc"
        ).rows
        assert [item.number for item in stored] == [2, 0, 1, 3]
        failed = list_items(
            session, PROJECT, run.id, status="fail", after=None, limit=9, order="asc"
        ).rows
        assert [item.number for item in failed] == [0]
        assert [item.number for item in items_from(session, PROJECT, run.id, 1, 2)] == [1, 2]


def test_page_of_large_results_ends_early(
    database: Database, run: EvalRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = begun(database, run)
    results = [result(number, "pass", True, True) for number in range(5)]
    with database.writing() as session:
        add_results(session, claim, run.id, results)
    monkeypatch.setattr("core.records.pages.PAGE_BYTES", 60)  # two results have more
    listed: list[int] = []
    after = None
    with database.reading() as session:
        while True:
            found = list_items(
                session, PROJECT, run.id, status=None, after=after, limit=9, order="asc"
            )
            assert len(found.rows) <= 2 and found.rows[0].body["datasource_item"]
            listed += [item.number for item in found.rows]
            if not found.has_more:
                break
            after = found.rows[-1].id
        assert listed == [0, 1, 2, 3, 4]
        assert len(items_from(session, PROJECT, run.id, 1, 9)) == 2


def test_worker_without_its_claim_writes_nothing(database: Database, run: EvalRun) -> None:
    claim = begun(database, run)
    with database.writing() as session:
        cancel_run(session, PROJECT, run.eval_id, run.id)
    for write in (
        lambda session: add_results(session, claim, run.id, [result(0, "pass", True, True)]),
        lambda session: end_run(session, claim, run.id),
        lambda session: begin_run(session, claim, run.id),
    ):
        with pytest.raises(StaleClaim), database.writing() as session:
            write(session)
    with database.reading() as session:
        found = row(session, run)
        assert (found.status, found.passed) == (EvalRunStatus.CANCELED, 0)
        assert session.scalar(select(func.count()).select_from(Task)) == 0


def test_canceling_again_changes_nothing_and_an_ended_run_cannot_be(
    database: Database, run: EvalRun
) -> None:
    with database.writing() as session:
        first = cancel_run(session, PROJECT, run.eval_id, run.id)
        again = cancel_run(session, PROJECT, run.eval_id, run.id)
        assert again.finished_at == first.finished_at
        new = new_run(run.eval_id, None)
        other, _ = create_run(session, new, request_of(new))
    claim = begun(database, other)
    with database.writing() as session:
        assert end_run(session, claim, other.id) is EvalRunStatus.COMPLETED
        assert end_run(session, claim, other.id) is EvalRunStatus.COMPLETED
    with (
        pytest.raises(Conflict, match="is completed and cannot be canceled"),
        database.writing() as session,
    ):
        cancel_run(session, PROJECT, run.eval_id, other.id)


def test_run_that_cannot_go_on_fails_with_the_reason(database: Database, run: EvalRun) -> None:
    claim = begun(database, run)
    error = {"code": "gone", "message": "The file is gone."}
    with database.writing() as session:
        assert end_run(session, claim, run.id, error) is EvalRunStatus.FAILED
    with database.reading() as session:
        assert row(session, run).error == error


def test_run_fails_with_its_task(database: Database, run: EvalRun) -> None:
    with database.writing() as session:
        assert fail_abandoned_runs(session) == []
        session.execute(delete(Task))
        assert fail_abandoned_runs(session) == [run.id]
        found = row(session, run)
        assert (found.status, found.error) == (
            EvalRunStatus.FAILED,
            {"code": "worker_lost", "message": "The task of the run is gone."},
        )
        assert fail_abandoned_runs(session) == []


def test_deleted_run_takes_its_results_and_its_blob(database: Database, run: EvalRun) -> None:
    claim = begun(database, run)
    with database.writing() as session:
        add_results(session, claim, run.id, [result(0, "pass", True, True)])
    with database.writing() as session:
        assert (
            delete_run(session, PROJECT, run.eval_id, run.id) is None
        )  # the file's, not the run's
        new = new_run(run.eval_id, None)
        create_run(session, new, request_of(new))
        assert delete_run(session, PROJECT, run.eval_id, new.id) == "evals/x"
        for table in (EvalRun, EvalRunItem, Task):
            assert session.scalar(select(func.count()).select_from(table)) == 0


def test_deleted_eval_takes_its_runs(database: Database, run: EvalRun) -> None:
    begun(database, run)
    with database.writing() as session:
        new = new_run(run.eval_id, None)
        create_run(session, new, request_of(new))
        assert delete_eval(session, PROJECT, run.eval_id) == ["evals/x"]
        for table in (EvalRun, Task):
            assert session.scalar(select(func.count()).select_from(table)) == 0


def test_run_is_found_in_its_own_eval_only(database: Database, run: EvalRun) -> None:
    with database.writing() as session:
        other = create_eval(session, new_eval())
        for move in (get_run, cancel_run, delete_run):
            with pytest.raises(NotFound, match="No eval run with id"):
                move(session, PROJECT, other.id, run.id)
        runs = list_runs(session, PROJECT, other.id, status=None, after=None, limit=9, order="asc")
        assert list(runs.rows) == []


def test_file_of_an_unfinished_run_is_kept(database: Database, run: EvalRun, file_id: str) -> None:
    with database.writing() as session:
        session.execute(update(File).values(expires_at=1.0))
        assert expired_files(session) == []
    with (
        pytest.raises(Conflict, match=f"is used by eval run {run.id}"),
        database.writing() as session,
    ):
        delete_file(session, PROJECT, file_id)
    with database.writing() as session:
        cancel_run(session, PROJECT, run.eval_id, run.id)
        assert expired_files(session) == [(PROJECT, file_id)]
        delete_file(session, PROJECT, file_id)
        assert row(session, run).file_id == file_id


def test_evals_are_listed_by_creation_or_change(database: Database, run: EvalRun) -> None:
    with database.writing() as session:
        others = [create_eval(session, new_eval(name=name)).id for name in ("b", "c")]
    with database.writing() as session:
        update_eval(session, PROJECT, run.eval_id, {"name": "changed"})

    def ids(order: Any, sorted_by: Any, after: str | None = None, limit: int = 9) -> list[str]:
        with database.reading() as session:
            page = list_evals(
                session, PROJECT, after=after, limit=limit, order=order, sorted_by=sorted_by
            )
            return [each.id for each in page.rows]

    assert ids("asc", "created_at") == [run.eval_id, *others]
    assert ids("desc", "created_at") == [*reversed(others), run.eval_id]
    assert ids("asc", "updated_at") == [*others, run.eval_id]
    assert ids("asc", "updated_at", after=others[0], limit=1) == [others[1]]
