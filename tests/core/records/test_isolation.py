"""Another project's rows do not exist, whichever function looks for them."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.records.batches import NewBatch, cancel_batch, create_batch, list_batches
from core.records.database import Database
from core.records.files import delete_file, list_files
from core.records.jobs import cancel_job, list_jobs
from core.records.masks import find_job_mask, get_audit, record_job_mask, request_audit
from core.records.models import (
    StoredBundle,
    add_checkpoint,
    add_final_model,
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
    store_response,
)
from core.records.speed_tests import (
    SPEED_TEST,
    find_speed_test,
    get_speed_test,
    request_speed_test,
)
from core.records.sweeps import (
    cancel_sweep,
    create_sweep,
    list_sweeps,
    pause_sweep,
    resume_sweep,
)
from core.records.tables import (
    Batch,
    Checkpoint,
    File,
    Job,
    OutputItem,
    Owned,
    StoredResponse,
    Sweep,
    Task,
    TunedModel,
)
from core.records.tasks import claim_next, succeed
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.search import GridSearch
from core.spec.serving import ADAPTER_FORM, ServingSpec
from core.spec.speed import SpeedResult, SpeedTarget
from core.spec.sweep import SweepSpec
from tests.core.inference.responses.planned import answer, plan_of, response_of
from tests.core.records.owned_tables import OWNED_TABLES

MODEL = "ft:tiny:alpha::1"
TARGET = SpeedTarget(
    base=BaseModelSpec(id="tiny", source="/models/tiny"), adapter=None, serving=ADAPTER_FORM
)
RESULT = SpeedResult(
    hardware="cpu", prompt_tokens=1, completion_tokens=1, levels=(), is_complete=True
)
MERGED = ServingSpec(form="merged")
TARGET = SpeedTarget(
    base=BaseModelSpec(id="tiny", source="/models/tiny"), adapter=None, serving=ServingSpec()
)

SWEEP = SweepSpec(
    job={},
    search=GridSearch(type="grid", parameters={"strategy.rank": [4, 8]}),
    halving=None,
    rungs=(),
)

Ids = dict[type[Owned], str]


def new_batch() -> NewBatch:
    """Return a batch of the project `alpha`."""
    return NewBatch("alpha", "/v1/completions", "file-1", "24h", 86_400, 1, None, None, None)


@pytest.fixture
def ids(database: Database, make_file: Callable[..., str], make_job: Callable[..., str]) -> Ids:
    """The ids of one row of each table, all owned by the project `alpha`."""
    file_id, job_id = make_file("alpha"), make_job(project_id="alpha", metadata={"k": "v"})
    with database.writing() as session:
        job = get_owned(session, Job, "alpha", job_id)
        bundle = StoredBundle("key", "0" * 64)
        add_final_model(session, job, MODEL, bundle)
        add_checkpoint(session, job, MODEL, 7, {}, bundle)
        [checkpoint] = session.query(Checkpoint).all()
        audit = request_audit(session, "alpha", file_id, JobSpec.model_validate(job.spec))
        batch, _ = create_batch(session, new_batch(), "key", {})
        response = response_of(plan_of(), answer("Hi."))
        store_response(session, "alpha", response, [], kept_seconds=60)
        return {
            Batch: batch.id,
            File: file_id,
            Job: job_id,
            TunedModel: MODEL,
            Checkpoint: checkpoint.id,
            Task: audit.id,
            StoredResponse: response["id"],
            OutputItem: response["output"][0]["id"],
            Sweep: create_sweep(session, "sweep-1", "alpha", SWEEP).id,
        }


MOVES: dict[str, Callable[[Session, Any, Ids], object]] = {
    "pause_job": lambda session, project, ids: pause_job(session, project, ids[Job]),
    "resume_job": lambda session, project, ids: resume_job(session, project, ids[Job]),
    "cancel_job": lambda session, project, ids: cancel_job(session, project, ids[Job]),
    "cancel_batch": lambda session, project, ids: cancel_batch(session, project, ids[Batch]),
    "pause_sweep": lambda session, project, ids: pause_sweep(session, project, ids[Sweep]),
    "resume_sweep": lambda session, project, ids: resume_sweep(session, project, ids[Sweep]),
    "cancel_sweep": lambda session, project, ids: cancel_sweep(session, project, ids[Sweep]),
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
}
"""What owners do, in an order in which all of it works."""

LISTS: dict[str, Callable[[Session, Any], object]] = {
    "files": lambda session, project: (
        list_files(session, project, purpose=None, after=None, limit=9, order="desc").rows
    ),
    "batches": lambda session, project: list_batches(session, project, after=None, limit=9).rows,
    "sweeps": lambda session, project: list_sweeps(session, project, after=None, limit=9).rows,
    "jobs": lambda session, project: list_jobs(session, project, after=None, limit=9).rows,
    "jobs by metadata": lambda session, project: (
        list_jobs(session, project, after=None, limit=9, metadata={"k": "v"}).rows
    ),
    "models": list_models,
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


def test_no_task_or_mask_is_shown_to_another_project(database: Database, ids: Ids) -> None:
    with database.writing() as session:
        record_job_mask(session, get_owned(session, Job, "alpha", ids[Job]), [])
        speed_id = request_speed_test(session, "alpha", MODEL, TARGET).id
    with database.reading() as session:
        assert find_job_mask(session, "alpha", ids[Job]) is not None
        assert find_job_mask(session, "beta", ids[Job]) is None
        assert get_audit(session, "alpha", ids[Task]).id == ids[Task]
        assert get_speed_test(session, "alpha", speed_id) is not None
        assert get_speed_test(session, "beta", speed_id) is None
        for project, task_id in (("beta", ids[Task]), ("alpha", speed_id), ("alpha", "unknown")):
            with pytest.raises(NotFound, match=f"No mask audit with id '{task_id}'") as refusal:
                get_audit(session, project, task_id)
            assert (refusal.value.param, refusal.value.code) == ("mask_id", "not_found")


def test_no_speed_test_is_found_for_another_project(database: Database, ids: Ids) -> None:
    with database.writing() as session:
        request_speed_test(session, "alpha", MODEL, TARGET)
        claim = claim_next(session, "worker-1", [SPEED_TEST])
        assert claim is not None
        succeed(session, claim, RESULT)
    with database.reading() as session:
        assert find_speed_test(session, "beta", MODEL, TARGET) is None
        assert find_speed_test(session, "alpha", MODEL, TARGET) is not None


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
