"""The states of bases and their downloads, as workers and engines report them."""

from collections.abc import Callable

import httpx
import pytest

from core.records import base_downloads, tasks, worker_bases, workers
from core.records.base_downloads import BASE_DOWNLOAD
from core.records.owned import get_owned
from core.records.tables import Job
from core.spec.base_files import BaseFiles, BaseSource, BaseState, DownloadProgress
from core.tasks.failure import TaskFailure
from core.tasks.kinds import Queue
from tests.api import as_worker
from tests.api.live import Api, register

QWEN = "Qwen/Qwen3-0.6B"
TINY = "tunesmith/tiny"
DOWNLOAD = f"/v1/models/{QWEN}/download"
JOBS = "/v1/fine_tuning/jobs"


def report(
    api: Api, worker_id: str = "worker-1", queue: Queue = Queue.DEVICE, **states: BaseState
) -> None:
    """Report as a worker: the tiny base is present, and others by the alias-like key."""
    keys = {"qwen": QWEN, "llama": "meta-llama/Llama-3.2-1B-Instruct"}
    tiny = api.state.catalog.resolve(TINY)
    found = {BaseSource.of(tiny): BaseFiles(state="present", bytes=8_397_312, license="apache-2.0")}
    found |= {
        BaseSource(source=keys[name]): BaseFiles(state=state) for name, state in states.items()
    }
    with api.database.writing() as session:
        worker_bases.report_bases(session, worker_id, found)
        workers.worker_seen(session, worker_id, "cpu", Queue.DEVICE)


def listed(client: httpx.Client, query: str = "") -> dict[str, dict[str, object]]:
    return {model["id"]: model for model in client.get(f"/v1/models{query}").json()["data"]}


def claim_download(api: Api) -> tasks.TaskClaim:
    with api.database.writing() as session:
        claim = tasks.claim_next(session, "worker-light", [BASE_DOWNLOAD])
    assert claim is not None
    return claim


def messages(client: httpx.Client, job_id: str) -> list[str]:
    return [event["message"] for event in client.get(f"{JOBS}/{job_id}/events").json()["data"]]


def test_list_has_what_can_answer_and_on_request_the_other_bases(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    create_job()
    tuned = as_worker.succeed(api, as_worker.start(api))
    report(api, qwen="downloadable", llama="missing")
    assert set(listed(client)) == {TINY, tuned}
    everything = listed(client, "?state=all")
    assert set(everything) == {tuned, *(base.id for base in api.state.catalog.bases())}
    assert everything[QWEN]["state"] == "downloadable"
    assert everything[tuned]["state"] is None
    assert QWEN in listed(client, "?state=downloadable")
    assert set(listed(client, "?state=missing")) == {"meta-llama/Llama-3.2-1B-Instruct"}
    answer = client.get("/v1/models?state=there")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "state")


def test_base_shows_its_state_size_and_license(api: Api, client: httpx.Client) -> None:
    report(api, qwen="missing")
    tiny, qwen = (client.get(f"/v1/models/{name}").json() for name in ("tiny", QWEN))
    shown = [tiny[key] for key in ("state", "bytes", "license")]
    assert shown == ["present", 8_397_312, "apache-2.0"]
    entry = api.state.catalog.entry(QWEN)
    shown = [qwen[key] for key in ("state", "bytes", "license")]
    assert shown == ["missing", entry.bytes, entry.license]


def test_without_reports_this_machine_is_looked_at(client: httpx.Client) -> None:
    everything = listed(client, "?state=all")
    assert everything[TINY]["state"] == "present"
    assert everything[QWEN]["state"] == "downloadable"


def test_best_report_counts_and_an_engine_that_has_loaded_it(
    api: Api, client: httpx.Client
) -> None:
    report(api, "worker-1", qwen="missing")
    report(api, "worker-2", qwen="downloadable")
    assert client.get(f"/v1/models/{QWEN}").json()["state"] == "downloadable"
    qwen = api.state.catalog.resolve(QWEN)
    for report_of_engine in ({"bases": [qwen]}, {"present": [BaseSource.of(qwen)]}):
        register(api, "http://127.0.0.1:9", **report_of_engine)
        assert client.get(f"/v1/models/{QWEN}").json()["state"] == "present"
    register(api, "http://127.0.0.1:9")
    assert client.get(f"/v1/models/{QWEN}").json()["state"] == "downloadable"


def test_job_and_mask_on_a_missing_base_are_refused(
    api: Api, client: httpx.Client, dataset: str
) -> None:
    report(api, qwen="missing")
    for path in (JOBS, "/v1/fine_tuning/masks"):
        answer = client.post(path, json={"model": "qwen3-0.6b", "training_file": dataset})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (404, "base_missing")
        assert error["param"] == "model" and f"hf download {QWEN}" in error["message"]


def test_mask_on_a_base_that_is_not_downloaded_is_refused(
    api: Api, client: httpx.Client, dataset: str
) -> None:
    report(api, qwen="downloadable")
    answer = client.post("/v1/fine_tuning/masks", json={"model": QWEN, "training_file": dataset})
    assert answer.json()["error"]["code"] == "base_missing"
    assert f"POST {DOWNLOAD}" in answer.json()["error"]["message"]


def test_job_on_a_downloadable_base_begins_its_download_and_waits(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    report(api, qwen="downloadable")
    first, second = create_job(model=QWEN), create_job(model=QWEN)
    assert client.get(f"{JOBS}/{first}").json()["status"] == "validating_files"
    claim = claim_download(api)
    with api.database.writing() as session:
        assert tasks.claim_next(session, "worker-light", [BASE_DOWNLOAD]) is None, "they share it"
        progress = DownloadProgress(bytes=35_000_000, total_bytes=100_000_000)
        base_downloads.record_progress(session, claim, progress, tell=True)
    told = [f"Downloading {QWEN}: 35 % of 100.0 MB.", f"Waiting for the download of {QWEN}."]
    for job_id in (first, second):
        assert messages(client, job_id)[:2] == told
    shown = client.get(DOWNLOAD).json()
    assert (shown["status"], shown["bytes"], shown["total_bytes"]) == (
        "running",
        35_000_000,
        100_000_000,
    )


def test_download_is_requested_watched_and_repeated(api: Api, client: httpx.Client) -> None:
    report(api, qwen="downloadable")
    assert client.get(DOWNLOAD).json()["error"]["code"] == "download_not_found"
    queued = client.post(DOWNLOAD).json()
    assert queued == {
        "object": "model.download",
        "model": QWEN,
        "status": "queued",
        "bytes": 0,
        "total_bytes": None,
        "error": None,
    }
    assert client.post("/v1/models/qwen3-0.6b/download").json() == queued
    claim = claim_download(api)
    failure = TaskFailure(code="base_download_refused", message="It is gated.", param="model")
    with api.database.writing() as session:
        tasks.fail(session, claim, failure)
    failed = client.get(DOWNLOAD).json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "base_download_refused")
    assert client.post(DOWNLOAD).json()["status"] == "queued"
    claim = claim_download(api)
    with api.database.writing() as session:
        base_downloads.record_progress(session, claim, DownloadProgress(bytes=9, total_bytes=9))
        tasks.succeed(session, claim, DownloadProgress(bytes=9, total_bytes=9))
    assert client.get(DOWNLOAD).json()["status"] == "succeeded"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_only_absent_bases_are_downloaded(api: Api, client: httpx.Client, method: str) -> None:
    report(api, llama="missing")
    tiny = client.request(method, "/v1/models/tiny/download").json()
    assert (tiny["status"], tiny["bytes"]) == ("succeeded", 8_397_312)
    for name, status, code in (
        ("ft:tiny:default::abcdefgh", 400, "model_not_base"),
        ("acme/none", 404, "model_not_found"),
        (
            "llama-3.2-1b-instruct",
            404,
            "base_missing" if method == "POST" else "download_not_found",
        ),
    ):
        answer = client.request(method, f"/v1/models/{name}/download")
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_aliases_of_one_base_name_models_of_the_same_base(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    bases, names = [], []
    for asked in ("tiny", "tunesmith/tiny"):
        job_id = create_job(model=asked, suffix="pets")
        tuned = as_worker.succeed(api, as_worker.start(api))
        names.append(tuned.rsplit(":", 1)[0])
        job = client.get(f"{JOBS}/{job_id}").json()
        with api.database.reading() as session:
            spec = get_owned(session, Job, "default", job_id).spec
        bases.append((job["model"], spec["base"]))
        assert job["requested_model"] == asked
    assert bases[0] == bases[1]
    assert names == ["ft:tiny:default:pets"] * 2
