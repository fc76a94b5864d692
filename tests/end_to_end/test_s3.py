"""The whole service over S3: every byte that outlives a process goes through the bucket."""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import APIStatusError, OpenAI
from openai.types.fine_tuning import FineTuningJob

from core.engine.adapters import AdapterFiles
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import TunedModel
from core.spec.bundle import BundleRef
from tests.api.live import running_api
from tests.end_to_end.service import submit, upload, wait_until
from tests.s3 import SECRET, S3Server
from tests.worker.serving import serving
from tests.worker.workshop import Workshop, make_workshop, worker_process
from worker.engine.settings import EngineSettings

QUESTION = [{"role": "user", "content": "What does the module os do?"}]


@dataclass(frozen=True)
class S3Service:
    """API and engine in this process, a worker in its own, and the bucket behind them."""

    client: OpenAI
    url: str
    workshop: Workshop
    s3: Any
    bucket: str
    prefix: str

    def blobs(self) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return sorted(each["Key"].removeprefix(self.prefix) for each in found)

    def ask(self, model: str) -> str:
        answer = self.client.chat.completions.create(model=model, messages=QUESTION, max_tokens=4)
        return answer.choices[0].message.content or ""

    def bundle_of(self, model: str) -> BundleRef:
        with self.workshop.database.reading() as session:
            found = get_owned(session, TunedModel, DEFAULT_PROJECT, model)
            return BundleRef(key=found.bundle_key, sha256=found.bundle_sha256)


@pytest.fixture
def service(
    tmp_path: Path, sqlite_url: str, s3_server: S3Server, s3_url: str
) -> Iterator[S3Service]:
    workshop = make_workshop(tmp_path, sqlite_url, storage_url=s3_url)
    engine_settings = EngineSettings(storage_url=s3_url, cache_folder=tmp_path / "engine")
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    with (
        serving(engine_settings) as engine,
        running_api(
            tmp_path,
            sqlite_url,
            str(engine.client.base_url).rstrip("/"),
            storage_folder=None,
            storage_url=s3_url,
        ) as api,
        worker_process(workshop, "worker-s3"),
        OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield S3Service(client, api.url, workshop, s3_server.client, bucket, f"{prefix}/")
    workshop.database.close()


def trained(service: S3Service, dataset: Path) -> FineTuningJob:
    job = submit(service.client, upload(service.client, dataset), epochs=3)
    return wait_until(service.client, job.id, "succeeded")


def refusal(service: S3Service, model: str) -> tuple[int, str | None, str | None]:
    with pytest.raises(APIStatusError) as refused:
        service.ask(model)
    answer = refused.value
    return answer.status_code, answer.code, answer.response.headers.get("retry-after")


def test_job_is_trained_served_and_taken_away_over_s3(
    service: S3Service,
    s3_server: S3Server,
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    client = service.client

    job = trained(service, small_dataset)
    assert service.blobs() == sorted(
        [f"bundles/{job.id}/1/{name}.zip" for name in ("final", "step-30", "step-60", "step-90")]
        + [f"files/{name}" for name in (job.training_file, *job.result_files)]
    )
    assert client.files.content(job.training_file).content == small_dataset.read_bytes()
    assert not (tmp_path / "storage").exists()
    assert list(scratch.iterdir()) == [], "the check of an upload leaves nothing"

    tuned = job.fine_tuned_model
    assert tuned is not None and service.ask(tuned)
    fetched = AdapterFiles(service.workshop.store, tmp_path / "another").ensure(
        service.bundle_of(tuned)
    )
    assert (fetched / "adapter_model.safetensors").is_file()

    checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
    # The last of them has the hash of the final model, which the engine holds already.
    _, damaged, deleted = [each.fine_tuned_model_checkpoint for each in checkpoints]
    service.s3.put_object(
        Bucket=service.bucket, Key=service.prefix + service.bundle_of(damaged).key, Body=b"damaged"
    )
    service.workshop.store.delete(service.bundle_of(deleted).key)
    assert refusal(service, damaged) == (503, "adapter_corrupt", "60")
    assert refusal(service, deleted)[:2] == (404, "adapter_not_found")

    client.files.delete(job.training_file)
    assert f"files/{job.training_file}" not in service.blobs()

    assert_storage_away(service, s3_server, small_dataset, job, not_loaded=deleted)
    assert list(scratch.iterdir()) == []
    written = [caplog.text, *(log.read_text() for log in tmp_path.glob("*.log"))]
    assert "Storage failed" in caplog.text and all(written)
    assert SECRET not in "".join(written)
    assert all(SECRET.encode() not in path.read_bytes() for path in tmp_path.glob("*.sqlite3*"))


def assert_storage_away(
    service: S3Service, s3_server: S3Server, dataset: Path, job: FineTuningJob, not_loaded: str
) -> None:
    """While S3 is away every answer says so, and when to come back; what is in memory serves on."""
    healthy = s3_server.fault
    s3_server.fault = lambda method, path: 503
    try:
        with dataset.open("rb") as content, pytest.raises(APIStatusError) as refused:
            service.client.files.create(file=content, purpose="fine-tune")
        download = httpx.get(f"{service.url}/v1/files/{job.result_files[0]}/content", timeout=60)
        ready = httpx.get(f"{service.url}/readyz", timeout=60)
        assert job.fine_tuned_model and service.ask(job.fine_tuned_model)
        assert refusal(service, not_loaded) == (503, "storage_unavailable", "10")
    finally:
        s3_server.fault = healthy
    assert (refused.value.status_code, refused.value.code) == (503, "storage_unavailable")
    assert refused.value.response.headers["retry-after"] == "10"
    assert (download.status_code, download.headers["retry-after"]) == (503, "10")
    assert "unavailable" in ready.json()["parts"]["storage"]
    assert httpx.get(f"{service.url}/readyz", timeout=60).json()["parts"]["storage"] == "ok"
