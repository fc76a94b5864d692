"""Another project's rows do not exist, whichever function looks for them."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.records.batches import cancel_batch, list_batches
from core.records.database import Database
from core.records.distillations import (
    cancel_distillation,
    delete_distillation,
    list_distillations,
)
from core.records.eval_runs import (
    cancel_run,
    delete_run,
    get_item,
    get_run,
    items_from,
    list_items,
    list_runs,
)
from core.records.evals import delete_eval, list_evals, update_eval
from core.records.files import delete_file, list_files
from core.records.jobs import cancel_job, list_jobs
from core.records.models import (
    delete_model,
    list_models,
    set_serving,
)
from core.records.owned import find_owned, get_owned
from core.records.parity import publish
from core.records.pauses import pause_job, resume_job
from core.records.responses import (
    cancel_response,
    delete_response,
    events_after,
    find_output_items,
    find_response_task,
    get_response,
    queue_response,
    responses_for_items,
)
from core.records.stored_completions import (
    completions_for_items,
    delete_completion,
    get_completion,
    list_completions,
    update_completion,
)
from core.records.sweeps import (
    cancel_sweep,
    list_sweeps,
    pause_sweep,
    resume_sweep,
)
from core.records.tables import (
    Batch,
    Distillation,
    Eval,
    EvalRun,
    EvalRunItem,
    File,
    Job,
    OutputItem,
    Owned,
    StoredCompletion,
    StoredResponse,
    Sweep,
    TunedModel,
)
from tests.core.inference.responses.planned import plan_of
from tests.core.records.one_row_each import (
    MERGED,
    MODEL,
    Ids,
)
from tests.core.records.owned_tables import OWNED_TABLES

MOVES: dict[str, Callable[[Session, Any, Ids], object]] = {
    "pause_job": lambda session, project, ids: pause_job(session, project, ids[Job]),
    "resume_job": lambda session, project, ids: resume_job(session, project, ids[Job]),
    "cancel_job": lambda session, project, ids: cancel_job(session, project, ids[Job]),
    "cancel_batch": lambda session, project, ids: cancel_batch(session, project, ids[Batch]),
    "pause_sweep": lambda session, project, ids: pause_sweep(session, project, ids[Sweep]),
    "resume_sweep": lambda session, project, ids: resume_sweep(session, project, ids[Sweep]),
    "cancel_sweep": lambda session, project, ids: cancel_sweep(session, project, ids[Sweep]),
    "cancel_distillation": lambda session, project, ids: cancel_distillation(
        session, project, ids[Distillation]
    ),
    "delete_distillation": lambda session, project, ids: delete_distillation(
        session, project, ids[Distillation]
    ),
    "delete_file": lambda session, project, ids: delete_file(session, project, ids[File]),
    "set_serving": lambda session, project, ids: set_serving(session, project, MODEL, MERGED),
    "publish": lambda session, project, ids: publish(session, project, MODEL),
    "delete_model": lambda session, project, ids: delete_model(session, project, MODEL),
    "cancel_response": lambda session, project, ids: cancel_response(
        session, project, ids[StoredResponse]
    ),
    "delete_response": lambda session, project, ids: delete_response(
        session, project, ids[StoredResponse]
    ),
    "update_completion": lambda session, project, ids: update_completion(
        session, project, ids[StoredCompletion], None
    ),
    "delete_completion": lambda session, project, ids: delete_completion(
        session, project, ids[StoredCompletion]
    ),
    "update_eval": lambda session, project, ids: update_eval(session, project, ids[Eval], {}),
    "cancel_run": lambda session, project, ids: cancel_run(
        session, project, ids[Eval], ids[EvalRun]
    ),
    "delete_run": lambda session, project, ids: delete_run(
        session, project, ids[Eval], ids[EvalRun]
    ),
    "delete_eval": lambda session, project, ids: delete_eval(session, project, ids[Eval]),
}
"""What owners do, in an order in which all of it works."""

LISTS: dict[str, Callable[[Session, Any], object]] = {
    "files": lambda session, project: (
        list_files(session, project, purpose=None, after=None, limit=9, order="desc").rows
    ),
    "batches": lambda session, project: list_batches(session, project, after=None, limit=9).rows,
    "sweeps": lambda session, project: list_sweeps(session, project, after=None, limit=9).rows,
    "distillations": lambda session, project: (
        list_distillations(session, project, after=None, limit=9).rows
    ),
    "jobs": lambda session, project: list_jobs(session, project, after=None, limit=9).rows,
    "jobs by metadata": lambda session, project: (
        list_jobs(session, project, after=None, limit=9, metadata={"k": "v"}).rows
    ),
    "models": list_models,
    "evals": lambda session, project: (
        list_evals(session, project, after=None, limit=9, order="asc", sorted_by="updated_at").rows
    ),
    "stored completions": lambda session, project: (
        list_completions(
            session,
            project,
            model=None,
            metadata={"k": "v"},
            after=None,
            limit=9,
            order="asc",
        ).rows
    ),
    "completions for items": lambda session, project: list(
        completions_for_items(
            session,
            project,
            model=MODEL,
            metadata={"k": "v"},
            created_after=0,
            created_before=None,
            limit=9,
        )
    ),
    "responses for items": lambda session, project: list(
        responses_for_items(session, project, created_after=0, created_before=None)
    ),
}


def test_a_row_is_found_for_its_own_project_only(database: Database, ids: Ids) -> None:
    assert set(ids) == OWNED_TABLES, "a table has no row here"
    for table, id_ in ids.items():
        with database.writing() as session:
            assert get_owned(session, table, "alpha", id_).id == id_
            assert get_owned(session, table, "alpha", id_, lock="read").id == id_
            assert find_owned(session, table, "alpha", id_, lock="write") is not None
            for foreign in ("beta", "alph", ""):
                assert find_owned(session, table, foreign, id_) is None


@pytest.mark.parametrize(
    ("table", "param", "code"),
    [
        (File, "file_id", "file_not_found"),
        (Job, "fine_tuning_job_id", "not_found"),
        (Batch, "batch_id", "not_found"),
        (Sweep, "sweep_id", "not_found"),
        (Distillation, "distillation_id", "not_found"),
        (TunedModel, "model", "model_not_found"),
    ],
)
def test_a_foreign_id_is_told_like_one_that_nobody_has(
    database: Database, ids: Ids, table: type[Owned], param: str, code: str
) -> None:
    with database.reading() as session:
        for id_ in (ids[table], "unknown"):
            with pytest.raises(NotFound, match=f"No {table.noun} with id '{id_}'") as refusal:
                get_owned(session, table, "beta", id_)
            assert (refusal.value.param, refusal.value.code) == (param, code)
            with pytest.raises(NotFound) as refusal:
                get_owned(session, table, "beta", id_, param="elsewhere")
            assert refusal.value.param == "elsewhere"


def test_no_move_touches_a_row_of_another_project(database: Database, ids: Ids) -> None:
    for move in MOVES.values():
        with pytest.raises(NotFound), database.writing() as session:
            move(session, "beta", ids)
    for move in MOVES.values():
        with database.writing() as session:
            move(session, "alpha", ids)


def test_no_list_shows_a_row_of_another_project(database: Database, ids: Ids) -> None:
    with database.reading() as session:
        for rows in LISTS.values():
            assert rows(session, "beta") == []
            assert rows(session, "alpha") != []


def test_no_response_or_part_of_it_is_shown_to_another_project(
    database: Database, ids: Ids
) -> None:
    item_id = ids[OutputItem]
    plan = plan_of(background=True, stream=True)
    with database.writing() as session:
        event = {"type": "response.created", "sequence_number": 0}
        body = {**plan.frame, "status": "queued", "output": []}
        queue_response(session, "alpha", body, [], plan, events=[event], kept_seconds=60)
    with database.reading() as session:
        assert get_response(session, "alpha", ids[StoredResponse]).body["output"]
        assert list(find_output_items(session, "alpha", {item_id, "unknown"})) == [item_id]
        assert find_response_task(session, "alpha", plan.id) is not None
        assert list(events_after(session, "alpha", plan.id, -1)) == [event]
        with pytest.raises(NotFound, match="No response with id"):
            get_response(session, "beta", ids[StoredResponse])
        assert find_output_items(session, "beta", {item_id}) == {}
        assert find_response_task(session, "beta", plan.id) is None
        assert list(events_after(session, "beta", plan.id, -1)) == []


def test_no_run_result_or_completion_is_shown_to_another_project(
    database: Database, ids: Ids
) -> None:
    eval_id, run_id, item_id = ids[Eval], ids[EvalRun], ids[EvalRunItem]
    page: Any = {"status": None, "after": None, "limit": 9, "order": "asc"}
    with database.reading() as session:
        assert get_run(session, "alpha", eval_id, run_id).id == run_id
        assert list_runs(session, "alpha", eval_id, **page).rows
        assert list_items(session, "alpha", run_id, **page).rows
        assert get_item(session, "alpha", run_id, item_id).id == item_id
        assert get_completion(session, "alpha", ids[StoredCompletion]).model == MODEL
        assert list_items(session, "beta", run_id, **page).rows == []
        assert items_from(session, "beta", run_id, 0, 9) == []
        for look in (
            lambda: get_run(session, "beta", eval_id, run_id),
            lambda: list_runs(session, "beta", eval_id, **page),
            lambda: get_item(session, "beta", run_id, item_id),
            lambda: get_completion(session, "beta", ids[StoredCompletion]),
        ):
            with pytest.raises(NotFound):
                look()
