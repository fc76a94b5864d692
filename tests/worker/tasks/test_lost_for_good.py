"""Exports and imports that no worker survives: complete if they had been stored, else gone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from unittest.mock import patch

import pytest

from core.records import exports
from core.records.made_models import IMPORT
from core.records.models import list_models
from core.records.projects import DEFAULT_PROJECT
from core.spec.export import ExportResult, PushResult
from core.tasks.kinds import KINDS
from tests.worker.killed_attempts import attempt_task_until, points_of
from tests.worker.tasks import importing
from tests.worker.tasks.exporting import (
    export_of,
    pretending_children,
    request_export,
    tuned_model,
)
from tests.worker.workshop import Workshop
from worker import housekeeping
from worker.exports import building
from worker.tasks import making


@pytest.fixture(autouse=True)
def _one_attempt() -> Iterator[None]:
    once = {kind: replace(KINDS[kind], max_attempts=1) for kind in (exports.EXPORT, IMPORT)}
    with patch.dict(KINDS, once):
        yield


def each_end(workshop: Workshop, attempt: Callable[[int], int | None], begin: Callable[[], str]):
    """Kill the only attempt at each of its points; yield the task after housekeeping."""
    begin()
    for point in range(points_of(attempt)):
        task_id = begin()
        attempt(point)
        housekeeping.settle_failed_tasks(workshop.database, workshop.store)
        yield task_id


def test_an_import_is_a_model_or_leaves_nothing(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "ask_for_bundle", importing.pretended)
    seen = set()
    for task_id in each_end(
        workshop,
        lambda point: importing.attempt_until(workshop, point),
        lambda: importing.create(workshop),
    ):
        task = importing.task_of(workshop, task_id)
        with workshop.database.reading() as session:
            models = {model.id: model for model in list_models(session, DEFAULT_PROJECT)}
        if task.error is None:
            assert task.result is not None and task.result["model"] in models
        else:
            assert task.error["code"] == "worker_lost" and task.progress is None
        assert workshop.blobs("bundles") == {model.bundle_key for model in models.values()}
        seen.add(task.error is None)
    assert seen == {True, False}


def test_an_export_is_complete_or_leaves_nothing(workshop: Workshop) -> None:
    bundle, seen = tuned_model(workshop), set()
    with pretending_children():
        for export_id in each_end(
            workshop,
            lambda point: attempt_task_until(workshop, exports.EXPORT, building, point),
            lambda: request_export(workshop, bundle),
        ):
            task = export_of(workshop, export_id)
            kept = workshop.blobs(f"exports/{export_id}")
            if task.error is None:
                assert kept == {ExportResult.model_validate(task.result).content.key}
            else:
                assert task.error["code"] == "worker_lost" and not kept
            seen.add(task.error is None)
    assert seen == {True, False}


def test_an_export_that_could_not_be_pushed_is_kept(workshop: Workshop) -> None:
    bundle = tuned_model(workshop)
    target = {"repository": "me/mine", "private": True}
    pushed = PushResult(status="succeeded", repository="me/mine")
    with pretending_children(), patch("worker.tasks.export.push", return_value=pushed):
        request_export(workshop, bundle, push_to=target)
        points = points_of(
            lambda point: attempt_task_until(workshop, exports.EXPORT, building, point)
        )
        lost = request_export(workshop, bundle, push_to=target)
        attempt_task_until(workshop, exports.EXPORT, building, points - 2)  # before it succeeds
    assert export_of(workshop, lost).error is not None
    housekeeping.settle_failed_tasks(workshop.database, workshop.store)
    task = export_of(workshop, lost)
    assert task.error is None
    result = ExportResult.model_validate(task.result)
    assert result.push is not None and result.push.status == "failed"
    assert workshop.store.exists(result.content.key)
