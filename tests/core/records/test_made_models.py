"""The tasks that make models without a job belong to a project and have a kind."""

import pytest

from core.errors import NotFound
from core.records.database import Database
from core.records.exports import EXPORT, exported_model, request_export
from core.records.made_models import (
    IMPORT,
    SOUP,
    get_making,
    imports_of,
    record_made,
    request_import,
    request_soup,
)
from core.records.models import StoredBundle
from core.records.projects import ensure_project
from core.records.tasks import claim_next
from core.spec.base_model import BaseModelSpec
from core.spec.batch import BatchModel
from core.spec.bundle import BundleRef
from core.spec.export import ExportOptions, ExportRequest
from core.spec.job import JobSpec
from core.spec.made_model import ImportRequest, MadeModel, SoupRequest, SourceFile
from core.spec.parity import Parity, ParityReference, ReplayedText
from core.spec.tuned import TunedSpec


def test_no_import_or_soup_is_shown_to_another_project(database: Database) -> None:
    base = BaseModelSpec(id="base", source="base")
    file = SourceFile(id="file-a", name="a.zip", blob_key="key")
    model = BatchModel(id="ft:a", base=base, adapter=None)
    asked = {"requested_model": "base", "base": base}
    with database.writing() as session:
        for project in ("alpha", "beta"):
            ensure_project(session, project)
        made = {
            IMPORT: request_import(session, "alpha", ImportRequest(**asked, files=(file,))).id,
            SOUP: request_soup(
                session, "alpha", SoupRequest(**asked, models=(model,), weights=(1.0,))
            ).id,
        }
    with database.reading() as session:
        assert imports_of(session, "alpha", "file-a") == [made[IMPORT]]
        assert imports_of(session, "beta", "file-a") == []
        for kind, task_id in made.items():
            assert get_making(session, "alpha", kind, task_id).id == task_id
            with pytest.raises(NotFound):
                get_making(session, "beta", kind, task_id)
        with pytest.raises(NotFound):
            get_making(session, "alpha", SOUP, made[IMPORT])


def test_rows_of_the_parity_check_are_kept_for_exports(database: Database) -> None:
    base = BaseModelSpec(id="base", source="base")
    file = SourceFile(id="file-a", name="a.zip", blob_key="key")
    row = ReplayedText(line=1, text="a", logprobs={"x": -1.0})
    reference = ParityReference(precision="fp32", rows=(row,))
    bundle = StoredBundle("bundles/a.zip", "0" * 64)
    made = MadeModel(
        model="ft:base:default::x",
        tuned=TunedSpec.of(JobSpec(base=base, seed=0)),
        parameters=1,
        parity=Parity(status="passed"),
    )
    with database.writing() as session:
        ensure_project(session, "alpha")
        asked = ImportRequest(requested_model="base", base=base, files=(file,))
        request_import(session, "alpha", asked)
        claim = claim_next(session, "worker", [IMPORT])
        assert claim is not None
        record_made(session, claim, made, bundle, reference)
        wanted = ExportRequest(
            model=made.model,
            base=base,
            bundle=BundleRef(key=bundle.key, sha256=bundle.sha256),
            options=ExportOptions(format="merged", form="merged"),
        )
        request_export(session, "alpha", wanted, None)
        export = claim_next(session, "worker", [EXPORT])
        assert export is not None
        found, gap_nats = exported_model(session, export)
    assert found is not None and found.rows == (row,)
    assert gap_nats is None
