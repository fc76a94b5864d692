"""Imports and soups over HTTP: what is refused before any work, and what waits for a worker."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from core.records import tasks
from core.records.made_models import IMPORT, record_made
from core.records.models import StoredBundle
from core.spec.job import JobSpec
from core.spec.made_model import ImportRequest, MadeModel
from core.spec.parity import Parity, ParityReference
from core.spec.strategy import LoraSpec, PrefixSpec, StrategySpec
from core.spec.tuned import TunedSpec
from tests.api import as_worker
from tests.api.live import Api
from tests.core.adapter_files.archives import config, folder, weights, zipped
from tests.worker.workshop import TINY

BASE = "tunesmith/tiny"


@pytest.fixture
def send(client: httpx.Client) -> Callable[..., str]:
    """Upload the content as an adapter; return the id of the file."""

    def upload(content: bytes, name: str = "adapter.zip", purpose: str = "adapter") -> str:
        answer = client.post(
            "/v1/files", files={"file": (name, content)}, data={"purpose": purpose}
        )
        assert answer.status_code == 200, answer.text
        file_id: str = answer.json()["id"]
        return file_id

    return upload


def refused(client: httpx.Client, route: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(f"/v1/models/{route}", json=body)
    assert answer.status_code in (400, 404, 409), answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def test_import_waits_for_a_worker_with_what_its_names_meant(
    api: Api, client: httpx.Client, send: Callable[..., str]
) -> None:
    file_id = send(zipped(folder()))
    body = {"model": "tiny", "file": file_id, "suffix": "mine", "labels": [], "multi_label": False}
    made = client.post("/v1/models/import", json=body).json()
    assert (made["object"], made["status"], made["base"]) == ("model.import", "queued", BASE)
    assert (
        made["files"] == [file_id] and made["model"] is None and made["id"].startswith("ftimport-")
    )
    with api.database.writing() as session:
        claim = tasks.claim_next(session, "worker", [IMPORT])
    assert claim is not None
    request = ImportRequest.model_validate(claim.payload)
    assert (request.requested_model, request.suffix) == ("tiny", "mine")
    assert client.get(f"/v1/models/import/{made['id']}").json()["status"] == "running"
    in_use = client.delete(f"/v1/files/{file_id}")
    assert in_use.status_code == 409 and made["id"] in in_use.json()["error"]["message"]


def test_files_of_a_folder_are_sent_together(
    client: httpx.Client, send: Callable[..., str]
) -> None:
    files = [send(config(), "adapter_config.json"), send(weights(), "adapter_model.safetensors")]
    made = client.post("/v1/models/import", json={"model": BASE, "files": files})
    assert made.status_code == 200 and made.json()["files"] == files
    assert refused(client, "import", {"model": BASE, "file": files[0]})["code"] == "invalid_file"


def test_report_says_what_an_uploaded_adapter_is(
    client: httpx.Client, send: Callable[..., str]
) -> None:
    report = client.get(f"/v1/files/{send(zipped(folder()))}/report").json()
    assert (report["holds"], report["method"], report["tensors"]) == ("archive", "LORA", 2)
    hostile = send(zipped(folder(**{"../evil.txt": b"x"})))
    file = client.get(f"/v1/files/{hostile}").json()
    assert file["status"] == "error" and "outside its folder" in file["status_details"]
    error = refused(client, "import", {"model": BASE, "file": hostile})
    assert error["code"] == "invalid_file" and "outside its folder" in error["message"]


def test_import_of_nothing_that_can_be_imported_is_refused(
    client: httpx.Client, send: Callable[..., str], upload: Callable[..., str]
) -> None:
    file_id, dataset = send(zipped(folder())), upload()
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"model": BASE}, "file", "missing_required_parameter"),
        ({"model": BASE, "file": file_id, "files": [file_id]}, "file", "contradictory_parameters"),
        ({"model": BASE, "files": [file_id, file_id]}, "files", "invalid_value"),
        ({"model": BASE, "files": [file_id, dataset]}, "files[0]", "invalid_file"),
        ({"model": BASE, "file": dataset}, "file", "invalid_file_purpose"),
        ({"model": BASE, "file": "file-none"}, "file", "file_not_found"),
        ({"model": "none", "file": file_id}, "model", "model_not_found"),
        ({"model": "ft:tiny:default::x", "file": file_id}, "model", "model_not_base"),
    ]
    for body, param, code in cases:
        error = refused(client, "import", body)
        assert (error["param"], error["code"]) == (param, code), error


def test_soup_of_nothing_that_can_be_added_is_refused(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    names = []
    for _ in range(2):
        create_job()
        names.append(as_worker.succeed(api, as_worker.start(api)))
    made = client.post("/v1/models/soups", json={"models": names}).json()
    assert (made["object"], made["models"], made["weights"]) == ("model.soup", names, [0.5, 0.5])
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"models": [names[0], BASE]}, "models[1]", "model_not_tuned"),
        ({"models": [names[0], "ft:none"]}, "models[1]", "model_not_found"),
        ({"models": [names[0], names[0]]}, "models", "invalid_value"),
        ({"models": names, "weights": [1.0]}, "weights", "invalid_value"),
        ({"models": names, "weights": [0.0, 0.0]}, "weights", "invalid_value"),
    ]
    for body, param, code in cases:
        error = refused(client, "soups", body)
        assert (error["param"], error["code"]) == (param, code), error


def made_by_a_worker(api: Api, client: httpx.Client, file_id: str, strategy: StrategySpec) -> str:
    """Import a file as a worker does, as a model of this strategy; return the model."""
    created = client.post("/v1/models/import", json={"model": BASE, "file": file_id}).json()
    spec = JobSpec(base=TINY, strategy=strategy, seed=0)
    made = MadeModel(
        model=f"ft:tiny:default::{created['id']}",
        tuned=TunedSpec.of(spec),
        parameters=1,
        parity=Parity(status="passed"),
    )
    with api.database.writing() as session:
        claim = tasks.claim_next(session, "worker", [IMPORT])
        assert claim is not None and claim.id == created["id"]
        blob = api.state.store.write(f"bundles/{claim.id}/1/model.zip", [b"a bundle"])
        bundle = StoredBundle(blob.key, blob.sha256)
        record_made(session, claim, made, bundle, ParityReference(precision="fp32"))
        tasks.succeed(session, claim, made)
    return made.model


def test_an_imported_model_is_exported_in_the_formats_of_its_strategy(
    api: Api, client: httpx.Client, send: Callable[..., str]
) -> None:
    file_id = send(zipped(folder()))
    lora = made_by_a_worker(api, client, file_id, LoraSpec(rank=4))
    prefix = made_by_a_worker(api, client, file_id, PrefixSpec())
    for format_ in ("merged", "nf4", "int8", "vllm", "huggingface", "gguf", "adapter-gguf"):
        answer = client.post(f"/v1/models/{lora}/exports", json={"format": format_})
        assert answer.status_code == 200, answer.text
    assert len(client.get(f"/v1/models/{lora}/exports").json()["data"]) == 7
    error = client.post(f"/v1/models/{prefix}/exports", json={"format": "gguf"}).json()["error"]
    assert error["code"] == "export_not_possible"
    assert "Its formats are huggingface (adapter)" in error["message"]


def test_an_imported_qlora_is_trained_further_on_a_quantized_base(
    api: Api, client: httpx.Client, send: Callable[..., str], upload: Callable[..., str]
) -> None:
    model = made_by_a_worker(api, client, send(zipped(folder())), LoraSpec(rank=4, alpha=8.0))
    body = {"model": model, "training_file": upload(), "strategy": {"type": "qlora"}}
    job = client.post("/v1/fine_tuning/jobs", json=body)
    assert job.status_code == 200, job.text
    strategy = job.json()["strategy"]
    assert (strategy["type"], strategy["rank"], strategy["alpha"]) == ("qlora", 4, 8.0)
    body["strategy"] = {"type": "qlora", "rank": 8}
    error = client.post("/v1/fine_tuning/jobs", json=body).json()["error"]
    assert (error["param"], error["code"]) == ("strategy", "contradictory_parameters")
