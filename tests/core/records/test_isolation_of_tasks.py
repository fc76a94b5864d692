"""Tasks of another project do not exist, whichever function looks for them."""

from dataclasses import replace

import pytest

from core.errors import NotFound, StaleClaim
from core.records.comparisons import get_comparison, request_comparison
from core.records.database import Database
from core.records.dry_runs import DRY_RUN, get_dry_run, measured_runs, request_dry_run
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
from core.records.jobs import NewJob
from core.records.masks import find_job_mask, get_audit, record_job_mask
from core.records.owned import get_owned
from core.records.projects import ensure_project
from core.records.speed_tests import (
    SPEED_TEST,
    find_speed_test,
    get_speed_test,
    request_speed_test,
)
from core.records.tables import (
    File,
    Job,
    Task,
)
from core.records.tasks import claim_next, succeed
from core.records.verdicts import find_verdict
from core.spec.bundle import BundleRef
from core.spec.comparison import ComparisonRequest
from core.spec.export import ExportOptions, ExportProgress, ExportRequest
from core.spec.job import JobSpec
from tests.core.records.one_row_each import (
    COUNTED,
    MODEL,
    RESULT,
    TARGET,
    Ids,
)


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
