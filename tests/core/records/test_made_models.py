"""The tasks that make models without a job belong to a project and have a kind."""

import pytest

from core.errors import NotFound
from core.records.database import Database
from core.records.made_models import (
    IMPORT,
    SOUP,
    get_making,
    imports_of,
    request_import,
    request_soup,
)
from core.records.projects import ensure_project
from core.spec.base_model import BaseModelSpec
from core.spec.batch import BatchModel
from core.spec.made_model import ImportRequest, SoupRequest, SourceFile


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
