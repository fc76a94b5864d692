"""Downloads of bases against a hub on this machine."""

import os
import time
from pathlib import Path

import pytest

from core.catalog.base_files import base_folder
from core.spec.base_files import BaseFiles
from core.tasks.kinds import Queue
from tests.hub import COMMIT, SMALL_BASE, SMALL_BASE_BYTES, TOKEN, FakeHub
from tests.worker.downloading import (
    BASE,
    failure,
    found,
    in_background,
    newest,
    request,
    run_all,
)
from tests.worker.workshop import Workshop, wait_until
from worker.context import Worker
from worker.downloads import fetch
from worker.tasks import base_download
from worker.tasks.desk import TaskDesk


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
        pytest.param({"status": 500}, "hub_unavailable", "500", marks=pytest.mark.slow),
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


@pytest.mark.slow
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
