"""An import whose worker is killed at any of its writes: one model, one blob, nothing half."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.records import tasks
from core.records.made_models import IMPORT, record_made
from core.records.models import delete_model, list_models, tuned_spec
from core.records.projects import DEFAULT_PROJECT
from core.spec.events import RunFailed
from core.spec.ids import ModelId
from core.spec.made_model import MadeModel
from core.spec.making import MakingRequest
from tests.core.adapter_files.archives import zipped
from tests.worker.killed_attempts import points_of
from tests.worker.tasks.importing import REFERENCE, TUNED, attempt_until, create, pretended, task_of
from tests.worker.workshop import Workshop
from worker.tasks import making


@pytest.fixture(autouse=True)
def _child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "ask_for_bundle", pretended)


def blobs(workshop: Workshop) -> list[str]:
    return sorted(
        path.name for path in Path(workshop.folder / "storage").rglob("*.zip") if path.is_file()
    )


def test_killed_at_any_point_leaves_one_model_and_one_blob(workshop: Workshop) -> None:
    task_id = create(workshop)
    points = points_of(partial(attempt_until, workshop))
    assert points >= 10
    for point in range(points):
        with workshop.database.writing() as session:
            for model in list_models(session, DEFAULT_PROJECT):
                for key in delete_model(session, DEFAULT_PROJECT, model.id)[1]:
                    workshop.store.delete(key)
        task_id = create(workshop)
        if attempt_until(workshop, point) is not None:
            assert attempt_until(workshop, None) is None
        task = task_of(workshop, task_id)
        assert task.error is None and task.result is not None
        made = MadeModel.model_validate(task.result)
        with workshop.database.reading() as session:
            (model,) = list_models(session, DEFAULT_PROJECT)
            assert tuned_spec(session, model) == TUNED
        assert model.id == made.model == f"ft:tiny:default:mine:{task_id.partition('-')[2][:8]}"
        assert model.job_id is None and workshop.store.exists(model.bundle_key)
        assert len(blobs(workshop)) == 1, "a killed attempt left a blob"


def test_model_that_its_owner_deleted_does_not_come_back(workshop: Workshop) -> None:
    """The worker dies between the row of the model and the end of the task."""
    task_id = create(workshop)
    with workshop.database.writing() as session:
        claim = tasks.claim_next(session, "worker-victim", [IMPORT])
        assert claim is not None
        made = MadeModel(
            model="ft:tiny:default::x",
            tuned=TUNED,
            parameters=1,
            parity={"status": "unchecked"},  # type: ignore[arg-type]
        )
        blob: Any = workshop.store.write(f"bundles/{task_id}/1/model.zip", [b"x"])
        record_made(session, claim, made, blob, REFERENCE)
        delete_model(session, DEFAULT_PROJECT, ModelId(made.model))
        tasks.rescue_expired(session, worker_id="worker-victim")
    assert attempt_until(workshop, None) is None
    assert task_of(workshop, task_id).result is not None
    with workshop.database.reading() as session:
        assert not list_models(session, DEFAULT_PROJECT)


def test_refused_adapter_leaves_nothing(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(request: MakingRequest, should_stop: object) -> RunFailed:
        return RunFailed(code="adapter_refused", message="No.", param=None)

    monkeypatch.setattr(making, "ask_for_bundle", refused)
    create(workshop)
    with pytest.raises(making.InvalidRequest, match="No"):
        attempt_until(workshop, None)
    assert not blobs(workshop)


def test_bomb_that_passed_no_check_is_refused_by_the_worker(workshop: Workshop) -> None:
    create(workshop, zipped({"zeros.txt": bytes(30 << 20)}))
    with pytest.raises(making.InvalidRequest, match="would grow"):
        attempt_until(workshop, None)
