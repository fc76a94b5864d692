"""A data folder that an older version wrote, with runs in the middle, under the present code.

`data_of_0_1_0/README.md` says what is in the folder and how it was made.
"""

import csv
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from core.artifacts.manifest import verify
from tests.end_to_end.data_of_0_1_0.make import ANIMALS, QUESTION, STEPS
from tests.end_to_end.service import (
    BASE_MODEL,
    Service,
    download_adapter,
    messages_of,
    running_service,
    wait_until,
)

FOLDER = Path(__file__).with_name("data_of_0_1_0")
KEY = "none"
"""What `Service.client` sends; the older service had no key."""

SETTINGS = {
    "TUNESMITH_API_KEY": KEY,
    "TUNESMITH_THREADS": "1",
    "TUNESMITH_ENGINE_THREADS": "1",
    "TUNESMITH_ENGINE_PRECISION": "fp32",  # that of the recorded answers, on every processor
}

OPEN = ("paused", "killed", "further")
"""Jobs that had not ended. The others must be shown as they were."""

RENAMED = {
    "quantisation": "quantization",
    "double_quantisation": "double_quantization",
    "optimiser": "optimizer",
    "quantisation_gap_nats": "quantization_gap_nats",
}


@dataclass(frozen=True)
class Upgraded:
    """The present service on the folder, and what the older one said of it."""

    service: Service
    said: Any

    @property
    def client(self) -> OpenAI:
        return self.service.client

    def id(self, name: str) -> str:
        found: str = self.said["names"][name]
        return found

    def model(self, name: str) -> str:
        found: str = self.said["objects"]["jobs"][name]["fine_tuned_model"]
        return found

    def get(self, path: str) -> Any:
        return self._send("GET", path).json()

    def post(self, path: str, body: object) -> Any:
        return self._send("POST", path, json=body).json()

    def content(self, path: str) -> bytes:
        return self._send("GET", path).content

    def _send(self, method: str, path: str, **body: Any) -> httpx.Response:
        url = f"{self.service.url}/v1{path}"
        key = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(trust_env=False, timeout=120) as http:
            return http.request(method, url, headers=key, **body).raise_for_status()


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    data = tmp_path_factory.mktemp("old")
    with tarfile.open(FOLDER / "data.tar.xz") as archive:
        archive.extractall(data, filter="data")
    said = json.loads((FOLDER / "answers.json").read_bytes())
    with running_service(data, SETTINGS) as service:
        yield Upgraded(service, said)


def test_everything_is_shown_as_it_was(upgraded: Upgraded) -> None:
    said, client = renamed(upgraded.said["objects"]), upgraded.client
    for name, job in said["jobs"].items():
        path = f"/fine_tuning/jobs/{job['id']}"
        events = upgraded.get(f"{path}/events?limit=100")["data"]
        assert events[-1]["message"] == f"Created fine-tuning job: {job['id']}"
        if name not in OPEN:
            assert only_shown_before(upgraded.get(path), job) == job
            assert upgraded.get(f"{path}/checkpoints")["data"] == said["checkpoints"][name]
    for file_id, file in said["files"].items():
        sha256 = file.pop("sha256")
        assert upgraded.get(f"/files/{file_id}") == file
        assert hashlib.sha256(upgraded.content(f"/files/{file_id}/content")).hexdigest() == sha256
    models = {model["id"]: model for model in upgraded.get("/models?state=all")["data"]}
    for model in said["models"]:
        shown = only_shown_before(models[model["id"]], model)
        assert shown | {"precision": None} == model | {"precision": None}
    red = {job.id for job in client.fine_tuning.jobs.list(metadata={"team": "red"}).data}
    assert red == {upgraded.id(name) for name in ("whole", "paused", "cancelled", "killed")}
    assert len(upgraded.get(f"/fine_tuning/jobs/{upgraded.id('whole')}/mask")["rows"]) == 5
    assert upgraded.get(f"/models/{upgraded.model('whole')}/speed")["created_at"] <= 1.8e9


def test_the_folder_has_one_owner(upgraded: Upgraded) -> None:
    with pytest.raises(openai.AuthenticationError):
        upgraded.client.with_options(api_key="another").models.list()


def test_models_answer_as_they_did(upgraded: Upgraded) -> None:
    for model, said in upgraded.said["answers"].items():
        answer = upgraded.client.chat.completions.create(
            model=model,
            messages=QUESTION,
            temperature=0,
            max_tokens=len(said["logprobs"]),
            logprobs=True,
        )
        (choice,) = answer.choices
        assert choice.message.content == said["text"], model
        logprobs = [token.logprob for token in choice.logprobs.content]
        assert logprobs == pytest.approx(said["logprobs"], abs=1e-3), model
    texts = {"model": upgraded.model("labels"), "input": ANIMALS}
    for result, said in zip(
        upgraded.post("/classifications", texts)["results"], upgraded.said["labels"], strict=True
    ):
        assert result["label"]["scores"] == pytest.approx(said["label"]["scores"], abs=1e-3)


def test_stopped_runs_resume_and_end_as_the_uninterrupted_one(upgraded: Upgraded) -> None:
    client = upgraded.client
    client.fine_tuning.jobs.resume(upgraded.id("paused"))
    whole = curve(upgraded, "whole")
    assert len(whole) == STEPS
    for name in ("killed", "paused"):
        job = wait_until(client, upgraded.id(name), "succeeded")
        step = upgraded.said["saved_steps"][name]
        assert f"Resumed from step {step}." in messages_of(client, job.id)
        # the old version did not pad batches in fp32, so dropout drew other numbers
        assert curve(upgraded, name) == pytest.approx(whole, rel=1e-2)


def curve(upgraded: Upgraded, name: str) -> list[float]:
    """Return the training loss of every step, of the result file of a job."""
    (file_id,) = upgraded.client.fine_tuning.jobs.retrieve(upgraded.id(name)).result_files
    text = upgraded.content(f"/files/{file_id}/content").decode()
    return [float(row["train_loss"]) for row in csv.DictReader(io.StringIO(text))]


def test_what_waited_is_done(upgraded: Upgraded) -> None:
    mask: Any = {"status": "queued"}
    deadline = time.monotonic() + 180
    while mask["status"] == "queued" and time.monotonic() < deadline:
        mask = upgraded.get(f"/fine_tuning/masks/{upgraded.id('waiting mask')}")
        time.sleep(0.1)
    assert (mask["status"], len(mask["rows"])) == ("succeeded", 5)
    job = wait_until(upgraded.client, upgraded.id("further"), "succeeded")
    assert upgraded.client.models.retrieve(str(job.fine_tuned_model)).parity["status"] == "passed"  # type: ignore[attr-defined]


def test_old_files_train_and_old_models_are_taken_away(upgraded: Upgraded, tmp_path: Path) -> None:
    client = upgraded.client
    job = client.fine_tuning.jobs.create(
        model=BASE_MODEL,
        training_file=upgraded.id("prompts.csv"),
        extra_body={"strategy": {"type": "lora", "rank": 1}, "training": {"max_steps": 1}},
    )
    manifest = verify(download_adapter(client, upgraded.id("qlora"), tmp_path))
    assert (manifest.strategy.type, manifest.base_model) == ("qlora", BASE_MODEL)
    assert client.models.delete(upgraded.model("labels")).deleted
    assert client.files.delete(upgraded.id("labels.csv")).deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(upgraded.model("labels"))
    wait_until(client, job.id, "succeeded")


def only_shown_before(value: Any, before: Any) -> Any:
    """Return `value` without the fields that objects have only now."""
    if isinstance(value, dict) and isinstance(before, dict):
        return {key: only_shown_before(value[key], before[key]) for key in before if key in value}
    return value


def renamed(value: Any) -> Any:
    """Return what the older service said with the present names of its fields."""
    if isinstance(value, list):
        return [renamed(each) for each in value]
    if isinstance(value, dict):
        return {RENAMED.get(name, name): renamed(each) for name, each in value.items()}
    return value
