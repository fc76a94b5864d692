"""Exports by a worker: complete at any kill, kept when they are marked, gone when deleted."""

import io
import os
import signal
import threading
import zipfile
from dataclasses import replace
from unittest.mock import patch

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from core.jobs.broker import Broker
from core.records import exports, tasks
from core.records.projects import DEFAULT_PROJECT
from core.spec.events import RunFailed
from core.spec.export import ExportResult
from core.spec.export_steps import ReplayedFigures, ReplayStep, RowFigures, ServeStep, WriteStep
from core.tasks.kinds import KINDS, Queue, Work
from tests.worker.killed_attempts import attempt_task_until, points_of
from tests.worker.tasks.exporting import (
    MODEL,
    WEIGHTS,
    export_of,
    pretending_children,
    request_export,
    tuned_model,
)
from tests.worker.workshop import Workshop, wait_until, worker_process
from worker.context import Worker
from worker.exports import building
from worker.tasks.desk import TaskDesk


def run_waiting(workshop: Workshop) -> None:
    worker = Worker(workshop.settings(), workshop.database, workshop.store, threading.Event())
    TaskDesk(worker, Queue.LIGHT).run_waiting()


def result_of(workshop: Workshop, export_id: str) -> ExportResult:
    task = export_of(workshop, export_id)
    assert task.error is None, task.error
    return ExportResult.model_validate(task.result)


def archive_of(workshop: Workshop, result: ExportResult) -> zipfile.ZipFile:
    content = b"".join(workshop.store.read(result.content.key))
    assert len(content) == result.content.bytes
    for file in result.content.files:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            part = content[file.offset : file.offset + file.bytes]
            assert part == archive.read(file.path)
    return zipfile.ZipFile(io.BytesIO(content))


def children_of(worker_pid: int) -> list[psutil.Process]:
    """Return the descendants of a worker that lead a session: the children of its steps."""
    found = psutil.Process(worker_pid).children(recursive=True)
    return [each for each in found if os.getsid(each.pid) == each.pid]


def test_a_killed_worker_leaves_no_child_and_the_export_is_written_by_the_next(workshop):
    bundle = tuned_model(workshop)
    export_id = request_export(workshop, bundle)
    with worker_process(workshop, "worker-dead", "worker.light") as process:
        Broker(workshop.broker_url).wake(Work(exports.EXPORT, export_id))
        wait_until(
            lambda: (export_of(workshop, export_id).progress or {}).get("stage") == "writing",
            "weights are written",
        )
        wait_until(lambda: bool(children_of(process.pid)), "a child writes them")
        (child,) = children_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        psutil.wait_procs([child], timeout=30)
        assert not child.is_running()
    with workshop.database.writing() as session:
        assert tasks.rescue_expired(session, worker_id="worker-dead")
    run_waiting(workshop)
    result = result_of(workshop, export_id)
    assert result.replay.status == "passed", result.replay.reason
    assert result.replay.distance.adapter_share == pytest.approx(1, abs=0.1)
    assert workshop.blobs("exports") == {result.content.key}
    folder = workshop.folder / "unpacked"
    archive_of(workshop, result).extractall(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()
    assert f"exported from `{MODEL}`" in (folder / "README.md").read_text()


def test_killed_at_any_write_it_is_stored_once(workshop):
    bundle = tuned_model(workshop)

    def attempt(point: int | None) -> int | None:
        return attempt_task_until(workshop, exports.EXPORT, building, point)

    with pretending_children():
        request_export(workshop, bundle)
        points = points_of(attempt)
        assert points >= 12
        kept = workshop.blobs("exports")
        for point in range(points):
            export_id = request_export(workshop, bundle)
            if attempt(point) is not None:
                assert attempt(None) is None
            result = result_of(workshop, export_id)
            assert workshop.blobs("exports") == kept | {result.content.key}, point
            assert archive_of(workshop, result).read("model.safetensors") == WEIGHTS
            with workshop.database.writing() as session:
                keys = exports.forget_export(session, DEFAULT_PROJECT, export_id)
            for key in keys:
                workshop.store.delete(key)
            assert workshop.blobs("exports") == kept


def test_a_distant_export_is_kept_and_marked(workshop):
    export_id = request_export(workshop, tuned_model(workshop))
    far = ReplayedFigures(figures=(RowFigures(logprobs=(-5.0, -6.0), preferred=(3, 9)),))
    with pretending_children(lambda step: far if isinstance(step, ReplayStep) else None):
        run_waiting(workshop)
    result = result_of(workshop, export_id)
    assert result.replay.status == "marked" and "4 nat on average" in result.replay.reason
    assert result.replay.distance.greedy_agreement == 0.5
    card = archive_of(workshop, result).read("README.md").decode()
    assert result.replay.reason in card


@pytest.mark.parametrize(
    ("step_type", "code", "status"),
    [
        (ServeStep, "does_not_fit", "unchecked"),
        (ReplayStep, "does_not_fit", "unchecked"),
        (ReplayStep, "export_failed", "marked"),
    ],
)
def test_an_export_that_cannot_be_replayed_is_kept(workshop, step_type, code, status):
    export_id = request_export(workshop, tuned_model(workshop))
    failed = RunFailed(code=code, message="no room")
    with pretending_children(lambda step: failed if isinstance(step, step_type) else None):
        run_waiting(workshop)
    result = result_of(workshop, export_id)
    assert result.replay.status == status and "no room" in result.replay.reason


def test_an_export_that_cannot_be_written_says_why(workshop):
    export_id = request_export(workshop, tuned_model(workshop))
    failed = RunFailed(code="does_not_fit", message="needs 99 GiB")
    with pretending_children(lambda step: failed if isinstance(step, WriteStep) else None):
        run_waiting(workshop)
    task = export_of(workshop, export_id)
    assert (task.error["code"], task.error["message"]) == ("does_not_fit", "needs 99 GiB")
    assert workshop.blobs("exports") == set()


def test_a_full_disk_fails_the_export_and_leaves_nothing(workshop):
    export_id = request_export(workshop, tuned_model(workshop))
    full = OSError(28, "No space left on device")
    with pretending_children(), patch.object(building, "pack_state", side_effect=full):
        run_waiting(workshop)
    assert export_of(workshop, export_id).error["code"] == "disk_full"
    assert workshop.blobs("exports") == set()


def test_an_export_that_is_deleted_while_it_is_stored_leaves_nothing(workshop):
    export_id = request_export(workshop, tuned_model(workshop))

    def delete(step: object) -> None:
        if isinstance(step, ReplayStep):
            with workshop.database.writing() as session:
                exports.forget_export(session, DEFAULT_PROJECT, export_id)

    with pretending_children(delete):
        run_waiting(workshop)
    assert workshop.blobs("exports") == set()


def test_a_crash_is_retried_and_then_told(workshop):
    export_id = request_export(workshop, tuned_model(workshop))
    kind = replace(KINDS[exports.EXPORT], retry_seconds=0, max_attempts=2)
    crash = RuntimeError("of a bug")
    with (
        patch.dict(KINDS, {exports.EXPORT: kind}),
        patch.object(building, "fetch_bundle", side_effect=crash) as fetch,
    ):
        run_waiting(workshop)
    assert fetch.call_count == 2
    assert export_of(workshop, export_id).error["code"] == "task_crashed"


def test_equal_requests_share_an_unfinished_export(workshop):
    bundle = tuned_model(workshop)
    first = request_export(workshop, bundle)
    assert request_export(workshop, bundle) == first
    assert request_export(workshop, bundle, precision="fp32") != first
    with pretending_children():
        run_waiting(workshop)
    assert request_export(workshop, bundle) != first
