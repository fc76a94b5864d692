"""Another project's rows do not exist, whichever function looks for them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.orm import Session

from core.errors import NotFound, StaleClaim
from core.records.batches import cancel_batch, list_batches
from core.records.comparisons import get_comparison, request_comparison
from core.records.database import Database
from core.records.distillations import (
    cancel_distillation,
    delete_distillation,
    list_distillations,
)
from core.records.dry_runs import DRY_RUN, get_dry_run, measured_runs, request_dry_run
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
from core.records.exports import (
    EXPORT,
    forget_export,
    forget_exports,
    get_export,
    is_being_exported,
    list_exports,
    request_export,
    sealed_token,
    store_progress,
)
from core.records.files import delete_file, list_files
from core.records.jobs import NewJob, cancel_job, list_jobs
from core.records.masks import find_job_mask, get_audit, record_job_mask
from core.records.models import (
    delete_model,
    list_models,
    set_serving,
)
from core.records.owned import find_owned, get_owned
from core.records.parity import publish
from core.records.pauses import pause_job, resume_job
from core.records.projects import ensure_project
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
from core.records.speed_tests import (
    SPEED_TEST,
    find_speed_test,
    get_speed_test,
    request_speed_test,
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
    Task,
    TunedModel,
)
from core.records.tasks import claim_next, succeed
from core.records.verdicts import find_verdict
from core.spec.bundle import BundleRef
from core.spec.comparison import ComparisonRequest
from core.spec.export import ExportOptions, ExportProgress, ExportRequest
from core.spec.job import JobSpec
from tests.core.inference.responses.planned import plan_of
from tests.core.records.one_row_each import (
    COUNTED,
    MERGED,
    MODEL,
    RESULT,
    TARGET,
    Ids,
    rows_of_alpha,
)
from tests.core.records.owned_tables import OWNED_TABLES


@pytest.fixture
def ids(database: Database, make_file: Callable[..., str], make_job: Callable[..., str]) -> Ids:
    file_id, job_id = make_file("alpha"), make_job(project_id="alpha", metadata={"k": "v"})
    with database.writing() as session:
        return rows_of_alpha(session, file_id, job_id)


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


def test_no_verdict_or_comparison_is_shown_to_another_project(database: Database, ids: Ids) -> None:
    request = ComparisonRequest(models=(), blob_key="key", rows=1, samples=1, seed=0, max_tokens=1)
    with database.writing() as session:
        comparison_id = request_comparison(session, "alpha", ids[File], request).id
    with database.reading() as session:
        assert find_verdict(session, "alpha", MODEL) is not None
        assert find_verdict(session, "beta", MODEL) is None
        assert get_comparison(session, "alpha", comparison_id).subject == ids[File]
        with pytest.raises(NotFound, match="No comparison with id"):
            get_comparison(session, "beta", comparison_id)


def test_no_export_is_shown_to_another_project_or_deleted_by_it(
    database: Database, ids: Ids
) -> None:
    bundle = BundleRef(key="key", sha256="0" * 64)
    options = ExportOptions(format="merged", form="merged")
    request = ExportRequest(model=MODEL, base=TARGET.base, bundle=bundle, options=options)
    with database.writing() as session:
        ensure_project(session, "beta")
        export_id = request_export(session, "alpha", request, "sealed").id
        claim = claim_next(session, "worker-1", [EXPORT])
        assert claim is not None and sealed_token(session, claim) == "sealed"
        assert sealed_token(session, replace(claim, project_id="beta")) is None
        beta_id = request_export(session, "beta", request, None).id
        assert beta_id != export_id
    with database.writing() as session:
        for move in (get_export, forget_export):
            with pytest.raises(NotFound, match="No export with id"):
                move(session, "beta", export_id)
        with pytest.raises(NotFound, match="No model with id"):
            list_exports(session, "beta", MODEL, after=None, limit=1)
        assert forget_exports(session, "beta", MODEL) == []  # it has not begun
        with pytest.raises(NotFound):
            get_export(session, "beta", beta_id)
        assert not is_being_exported(session, "beta", MODEL)
        assert is_being_exported(session, "alpha", MODEL)
        page = list_exports(session, "alpha", MODEL, after=None, limit=1)
        assert [each.id for each in page.rows] == [export_id]
        assert forget_export(session, "alpha", export_id) == [f"exports/{export_id}/1.zip"]
        with pytest.raises(StaleClaim):
            store_progress(session, claim, ExportProgress(stage="writing"))


def test_no_dry_run_is_shown_to_another_project_or_corrects_its_estimates(
    database: Database, ids: Ids
) -> None:
    with database.writing() as session:
        spec = JobSpec.model_validate(get_owned(session, Job, "alpha", ids[Job]).spec)
        new = NewJob("alpha", "tiny", None, ids[File], None, spec, None)
        run_id = request_dry_run(session, new, COUNTED).id
        claim = claim_next(session, "worker-1", [DRY_RUN])
        assert claim is not None
        succeed(session, claim, COUNTED)
    with database.reading() as session:
        assert get_dry_run(session, "alpha", run_id).finished_at is not None
        assert [each.id for each in measured_runs(session, "alpha", spec)] == [run_id]
        assert measured_runs(session, "beta", spec) == []
        for project, task_id in (("beta", run_id), ("alpha", ids[Task]), ("alpha", "unknown")):
            with pytest.raises(NotFound, match=f"No estimate with id '{task_id}'"):
                get_dry_run(session, project, task_id)
        with pytest.raises(NotFound):
            request_dry_run(session, replace(new, project_id="beta"), COUNTED)


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
