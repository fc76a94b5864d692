"""Downloads of bases against a hub on this machine."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from core.catalog.base_files import base_folder, look_for
from core.records import base_downloads, worker_bases, workers
from core.records.base_downloads import BASE_DOWNLOAD, newest_download, request_download
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import Task
from core.spec.base_files import BaseFiles
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.tasks.kinds import KINDS, Queue
from tests.hub import COMMIT, SMALL_BASE, SMALL_BASE_BYTES, TOKEN, FakeHub, running_hub
from tests.worker.workshop import ROW, Workshop, wait_until
from worker import housekeeping
from worker.context import Worker
from worker.downloads import fetch
from worker.downloads.local_bases import report_local_bases
from worker.settings import WorkerSettings
from worker.tasks import base_download
from worker.tasks.desk import TaskDesk

BASE = BaseModelSpec(id="acme/small", source="acme/small")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub with one base, which the processes of the test use, and an empty cache."""
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with running_hub() as hub:
        hub.repositories["acme/small"] = SMALL_BASE
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def worker(hub: FakeHub, workshop: Workshop) -> Iterator[Worker]:
    """A light worker whose retries come at once."""
    kind = replace(KINDS[BASE_DOWNLOAD], retry_seconds=0.01, max_attempts=2)
    settings = workshop.settings()
    with patch.dict(KINDS, {BASE_DOWNLOAD: kind}):
        yield Worker(settings, workshop.database, workshop.store, threading.Event())


def request(workshop: Workshop, base: BaseModelSpec = BASE) -> str:
    with workshop.database.writing() as session:
        ensure_project(session)
        return request_download(session, DEFAULT_PROJECT, base).id


def run_all(worker: Worker) -> Task:
    """Run the download to its end and return it."""
    desk = TaskDesk(worker, Queue.LIGHT)

    def has_ended() -> bool:
        desk.run_waiting()
        return newest(worker).finished_at is not None

    wait_until(has_ended, "the download has ended")
    return newest(worker)


def newest(worker: Worker, base: BaseModelSpec = BASE) -> Task:
    with worker.database.reading() as session:
        task = newest_download(session, base)
    assert task is not None
    return task


def failure(worker: Worker) -> tuple[str, str]:
    error = run_all(worker).error
    assert error is not None
    return error["code"], error["message"]


@contextmanager
def in_background(worker: Worker) -> Iterator[None]:
    thread = threading.Thread(target=TaskDesk(worker, Queue.LIGHT).run_waiting)
    thread.start()
    yield
    thread.join()


def submit(workshop: Workshop, base: BaseModelSpec = BASE) -> str:
    """Create a job on the base, which is not told about any download."""
    return workshop.create(JobSpec(base=base, seed=1), workshop.upload(ROW % 1))


def declare(workshop: Workshop, *bases: BaseModelSpec) -> None:
    with workshop.database.writing() as session:
        worker_bases.declare_bases(session, bases)


def device_worker(workshop: Workshop, worker_id: str = "worker-device") -> WorkerSettings:
    """Let a device worker of this machine report once, as its presence does."""
    settings = workshop.settings(worker_id)
    report_local_bases(workshop.database, settings)
    with workshop.database.writing() as session:
        workers.worker_seen(session, worker_id, "cpu", Queue.DEVICE)
    return settings


def found(worker: Worker) -> BaseFiles:
    return look_for(BASE, worker.settings.hub_folder, may_download=True)


def test_base_is_downloaded_without_the_copies_of_its_weights(
    worker: Worker, workshop: Workshop, hub: FakeHub
) -> None:
    assert found(worker) == BaseFiles(state="downloadable")
    request(workshop)
    task = run_all(worker)
    assert task.error is None
    assert task.progress == {"bytes": SMALL_BASE_BYTES, "total_bytes": SMALL_BASE_BYTES}
    assert found(worker) == BaseFiles(state="present", bytes=500_000, license="mit")
    folder = base_folder(BASE, worker.settings.hub_folder)
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == set(list(SMALL_BASE)[:6])
    fetched = [path.rsplit("/", 1)[-1] for path in hub.requests if path.startswith("GET /acme")]
    assert {name.endswith("safetensors") for name in fetched[-2:]} == {True}, "weights come last"


def test_unfinished_download_shows_its_progress_and_is_not_present(
    worker: Worker, workshop: Workshop, hub: FakeHub
) -> None:
    hub.gate.clear()
    request(workshop)
    with in_background(worker):

        def shows_half() -> bool:
            progress = newest(worker).progress
            return progress is not None and progress["bytes"] > 300_000

        wait_until(shows_half, "one file of the weights is on the disk", seconds=90)
        assert found(worker).state == "downloadable"
        hub.gate.set()
    assert found(worker).state == "present"


def test_partial_file_counts(tmp_path: Path) -> None:
    file = fetch.RemoteFile(bytes=10, blob="abc")
    assert fetch._bytes_of(file, tmp_path) == 0
    (tmp_path / "abc.1234.incomplete").write_bytes(b"1234")
    assert fetch._bytes_of(file, tmp_path) == 4
    (tmp_path / "abc").write_bytes(b"1234567890")
    assert fetch._bytes_of(file, tmp_path) == 10


def test_full_disk_is_noticed_before_the_download(tmp_path: Path) -> None:
    huge = fetch.RemoteFile(bytes=10**18, blob="abc")
    with pytest.raises(fetch.Refused, match="left") as caught:
        fetch._require_room([huge], tmp_path)
    assert caught.value.code == "disk_full"


def test_partial_files_of_killed_downloads_are_deleted(tmp_path: Path) -> None:
    for name, age in (("old", 2 * fetch.ABANDONED_AFTER_SECONDS), ("new", 1.0)):
        path = tmp_path / f"{name}.incomplete"
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age,) * 2)
    fetch._delete_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new.incomplete"]


def test_broken_transfer_continues_where_it_broke(
    worker: Worker, workshop: Workshop, hub: FakeHub
) -> None:
    hub.breaks_after = 100_000
    request(workshop)
    assert run_all(worker).error is None
    weights = base_folder(BASE, worker.settings.hub_folder)
    assert weights is not None
    assert (weights / "model-1-of-2.safetensors").read_bytes() == b"a" * 300_000
    assert newest(worker).attempts == 1


def test_stopped_worker_gives_the_download_back_and_complete_files_are_kept(
    worker: Worker, workshop: Workshop, hub: FakeHub
) -> None:
    hub.gate.clear()
    request(workshop)
    with in_background(worker):
        fetching = f"GET /acme/small/resolve/{COMMIT}/model-2-of-2.safetensors"
        wait_until(lambda: fetching in hub.requests, "the weights are fetched", seconds=90)
        worker.stopping.set()
    assert (newest(worker).attempts, newest(worker).finished_at) == (0, None)
    hub.gate.set()
    hub.requests.clear()
    worker.stopping.clear()
    assert run_all(worker).error is None
    assert not [each for each in hub.requests if each.startswith("GET") and "config.json" in each]


@pytest.mark.parametrize(
    ("mood", "code", "words"),
    [
        ({"repositories": {}}, "base_download_refused", "no repository acme/small"),
        ({"is_gated": True}, "base_download_refused", "Accept its license"),
        ({"status": 401}, "base_download_refused", "HF_TOKEN"),
        ({"status": 403}, "base_download_refused", "HF_TOKEN"),
        ({"status": 500}, "hub_unavailable", "500"),
        (
            {"repositories": {"acme/small": {"config.json": b"{}", "pytorch_model.bin": b"x"}}},
            "unsupported_model",
            "safetensors",
        ),
    ],
    ids=["unknown", "gated", "unauthorized", "forbidden", "down", "pickled"],
)
def test_refusals_of_the_hub_say_what_to_do(
    worker: Worker, workshop: Workshop, hub: FakeHub, mood: dict[str, object], code: str, words: str
) -> None:
    vars(hub).update(mood)
    request(workshop)
    found_code, message = failure(worker)
    assert found_code == code and words in message, message
    assert newest(worker).attempts == (2 if code == "hub_unavailable" else 1)


def test_gated_base_is_downloaded_with_a_token(
    worker: Worker, workshop: Workshop, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.is_gated = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    request(workshop)
    assert run_all(worker).error is None


def test_unknown_revision_is_refused(worker: Worker, workshop: Workshop) -> None:
    base = BASE.model_copy(update={"revision": "v9"})
    request(workshop, base)
    TaskDesk(worker, Queue.LIGHT).run_waiting()
    error = newest(worker, base).error
    assert error is not None and error["code"] == "base_download_refused"
    assert "'v9'" in error["message"]


def test_hub_out_of_reach_is_tried_again_and_then_named(
    worker: Worker, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    request(workshop)
    code, message = failure(worker)
    assert (code, newest(worker).attempts) == ("hub_unavailable", 2)
    assert "acme/small could not be downloaded" in message


def test_stalled_download_is_stopped(
    worker: Worker, workshop: Workshop, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_download, "STALLED_SECONDS", 3.0)
    hub.gate.clear()
    request(workshop)
    code, message = failure(worker)
    assert code == "hub_unavailable" and "stalled" in message


def test_requests_for_one_base_share_its_download(worker: Worker, workshop: Workshop) -> None:
    first = request(workshop)
    assert request(workshop) == first
    run_all(worker)
    assert request(workshop) != first, "a finished one may have been deleted from the disk"


def test_job_on_an_absent_base_waits_and_holds_nobody_up(
    worker: Worker, workshop: Workshop, hub: FakeHub
) -> None:
    declare(workshop, BASE)
    waiting = submit(workshop)
    other = workshop.submit()
    device_worker(workshop, "worker-here")
    claim = workshop.claim()
    assert claim.job_id == other, "the older job waits for its base"
    housekeeping.settle_waiting_jobs(workshop.database)
    assert "Waiting for the download of acme/small." in workshop.messages(waiting)
    assert run_all(worker).error is None
    messages = workshop.messages(waiting)
    assert "Downloading acme/small: 100 % of 0.5 MB." in messages
    assert "acme/small is downloaded." in messages
    device_worker(workshop, "worker-here")
    assert workshop.claim().job_id == waiting


def test_job_fails_with_its_download(worker: Worker, workshop: Workshop, hub: FakeHub) -> None:
    declare(workshop, BASE)
    hub.is_gated = True
    waiting = submit(workshop)
    device_worker(workshop)
    housekeeping.settle_waiting_jobs(workshop.database)
    run_all(worker)
    housekeeping.settle_waiting_jobs(workshop.database)
    job = workshop.job(waiting)
    assert job.status == "failed" and job.error is not None
    assert (job.error["code"], job.error["param"]) == ("base_download_refused", "model")


def test_job_on_a_missing_folder_fails_at_once(worker: Worker, workshop: Workshop) -> None:
    gone = BaseModelSpec(id="acme/gone", source=str(workshop.folder / "gone"))
    declare(workshop, gone)
    job_id = submit(workshop, gone)
    housekeeping.settle_waiting_jobs(workshop.database)
    assert workshop.job(job_id).status == "validating_files", "no device worker has looked yet"
    device_worker(workshop)
    housekeeping.settle_waiting_jobs(workshop.database)
    job = workshop.job(job_id)
    assert job.status == "failed" and job.error is not None
    assert job.error["code"] == "base_missing"


def test_download_to_another_machine_does_not_leave_the_job_waiting(
    worker: Worker, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(workshop, BASE)
    waiting = submit(workshop)
    run_all_here = worker
    monkeypatch.setenv("HF_HOME", str(workshop.folder / "elsewhere"))
    device_worker(workshop)
    housekeeping.settle_waiting_jobs(workshop.database)
    monkeypatch.setenv("HF_HOME", str(workshop.folder / "hf"))
    assert run_all(run_all_here).error is None
    housekeeping.settle_waiting_jobs(workshop.database)
    assert workshop.job(waiting).status == "validating_files"
    monkeypatch.setattr(base_downloads, "SETTLING_SECONDS", 0.0)
    housekeeping.settle_waiting_jobs(workshop.database)
    job = workshop.job(waiting)
    assert job.error is not None and "share one HF_HOME" in job.error["message"]


def test_forbidden_downloads_make_a_base_missing(
    worker: Worker, workshop: Workshop, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(workshop, BASE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    device_worker(workshop)
    with workshop.database.reading() as session:
        states = worker_bases.found_bases(session)
    assert [files.state for files in states.values()] == ["missing"]
    request(workshop)
    code, message = failure(worker)
    assert code == "base_missing" and "HF_HUB_OFFLINE" in message
    assert hub.requests == []


def test_dead_workers_reports_do_not_count(worker: Worker, workshop: Workshop) -> None:
    declare(workshop, BASE)
    device_worker(workshop)
    with workshop.database.writing() as session:
        assert worker_bases.found_bases(session)
        workers.worker_gone(session, "worker-device")
        assert not worker_bases.found_bases(session)
