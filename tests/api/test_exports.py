"""Exports over HTTP: what is refused, what is shown, and the bytes of their files."""

import io
import json
import zipfile
from collections.abc import Callable

import httpx
import pytest

from core.records.owned import get_owned
from core.records.tables import Task
from tests.api import as_worker
from tests.api.exporting import finish_export
from tests.api.live import Api, running_api

TOKEN = "hf_of_somebody_who_trusts_us"


@pytest.fixture
def tuned(api: Api, create_job: Callable[..., str]) -> str:
    create_job()
    return as_worker.succeed(api, as_worker.start(api))


def request_export(client: httpx.Client, tuned: str, **body: object) -> dict:
    answer = client.post(f"/v1/models/{tuned}/exports", json={"format": "merged"} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_export_is_listed_downloaded_and_deleted(api: Api, client: httpx.Client, tuned: str):
    created = request_export(client, tuned)
    assert (created["object"], created["status"], created["stage"]) == (
        "model.export",
        "queued",
        None,
    )
    assert (created["format"], created["form"], created["files"]) == ("merged", "merged", [])
    assert request_export(client, tuned)["id"] == created["id"], "an equal request is the same"
    other = request_export(client, tuned, precision="fp32")
    assert other["id"] != created["id"]
    content = f"/v1/exports/{created['id']}/content"
    early = client.get(content)
    assert (early.status_code, early.json()["error"]["code"]) == (409, "export_not_ready")
    archive = finish_export(api, created["id"])
    found = client.get(f"/v1/exports/{created['id']}").json()
    assert (found["status"], found["bytes"]) == ("succeeded", len(archive))
    assert found["replay"]["status"] == "unchecked"
    listed = client.get(f"/v1/models/{tuned}/exports").json()["data"]
    assert [each["id"] for each in listed] == [other["id"], created["id"]]
    assert client.get(content).content == archive
    assert zipfile.ZipFile(io.BytesIO(archive)).testzip() is None
    assert client.delete(f"/v1/exports/{created['id']}").json() == {
        "id": created["id"],
        "object": "model.export",
        "deleted": True,
    }
    assert client.get(content).status_code == 404
    assert not list((api.folder / "storage/exports").rglob("*.zip"))


def test_files_and_ranges_of_an_export(api: Api, client: httpx.Client, tuned: str):
    created = request_export(client, tuned)
    archive = finish_export(api, created["id"])
    content = f"/v1/exports/{created['id']}/content"
    weights = client.get(content, params={"path": "model.safetensors"})
    expected = bytes(range(256)) * 100
    assert weights.content == expected and weights.headers["accept-ranges"] == "bytes"
    cases = {
        "bytes=0-9": (0, 10),
        "bytes=100-": (100, len(expected)),
        "bytes=-7": (len(expected) - 7, len(expected)),
        "bytes=25000-99999999": (25000, len(expected)),
    }
    for wanted, (first, end) in cases.items():
        for path, whole in (("model.safetensors", expected), (None, archive)):
            end_here = min(end, len(whole)) if "-9" in wanted else len(whole)
            if path is None and wanted != "bytes=0-9":
                continue
            answer = client.get(
                content, params={"path": path} if path else {}, headers={"range": wanted}
            )
            assert answer.status_code == 206, wanted
            assert answer.content == whole[first:end_here]
            last = f"bytes {first}-{end_here - 1}/{len(whole)}"
            assert answer.headers["content-range"] == last
    for ignored in ("bytes=5-1", "bytes=0-1,4-5", "lines=1-2", "bytes=-"):
        assert client.get(content, headers={"range": ignored}).content == archive
    beyond = client.get(content, headers={"range": f"bytes={len(archive)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(archive)}"
    missing = client.get(content, params={"path": "../x"})
    assert missing.status_code == 404 and "model.safetensors" in missing.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"format": "onnx"}, "format", "invalid_value"),
        ({"format": "merged", "form": "adapter"}, "format", "export_not_possible"),
        ({"format": "merged", "quantization": "q8_0"}, "quantization", "contradictory_parameters"),
        ({"format": "gguf", "precision": "bf16"}, "precision", "contradictory_parameters"),
        ({"format": "nf4", "merge_into": "base"}, "merge_into", "contradictory_parameters"),
        (
            {"format": "huggingface", "form": "adapter", "precision": "bf16"},
            "precision",
            "contradictory_parameters",
        ),
        (
            {"format": "merged", "push_to": {"repository": "me/model", "token": TOKEN}},
            "push_to",
            "push_not_available",
        ),
        (
            {"format": "merged", "push_to": {"repository": "http://10.0.0.1/x", "token": TOKEN}},
            "push_to.repository",
            "invalid_value",
        ),
    ],
)
def test_what_is_refused(client: httpx.Client, tuned: str, body: dict, param: str, code: str):
    answer = client.post(f"/v1/models/{tuned}/exports", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert TOKEN not in answer.text


@pytest.mark.parametrize(
    ("strategy", "format_", "said"),
    [
        ("prefix", "merged", "Its formats are huggingface (adapter)"),
        ("prompt", "vllm", "Its formats are huggingface (adapter)"),
        ("bottleneck", "huggingface", "It has no export format"),
        ("full", "adapter-gguf", "every weight of it was trained"),
    ],
)
def test_a_strategy_says_which_formats_it_has(
    api: Api,
    client: httpx.Client,
    create_job: Callable[..., str],
    strategy: str,
    format_: str,
    said: str,
):
    create_job(strategy={"type": strategy})
    tuned = as_worker.succeed(api, as_worker.start(api))
    answer = client.post(f"/v1/models/{tuned}/exports", json={"format": format_})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
    assert answer.json()["error"]["code"] == "export_not_possible"


def test_bases_are_not_exported_and_unknown_models_not_found(client: httpx.Client):
    body = {"format": "merged"}
    answer = client.post("/v1/models/tunesmith/tiny/exports", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_tuned")
    assert client.post("/v1/models/ft:x:y::z/exports", json=body).status_code == 404
    assert client.get("/v1/models/ft:x:y::z/exports").status_code == 404
    assert client.get("/v1/exports/export-unknown").status_code == 404
    assert client.delete("/v1/exports/export-unknown").status_code == 404


def test_exports_of_a_deleted_model_are_deleted_with_it(api: Api, client: httpx.Client, tuned: str):
    created = request_export(client, tuned)
    finish_export(api, created["id"])
    assert client.delete(f"/v1/models/{tuned}").status_code == 200
    assert client.get(f"/v1/exports/{created['id']}").status_code == 404
    assert not list((api.folder / "storage/exports").rglob("*.zip"))


def test_a_token_is_sealed_in_the_database_and_gone_at_the_end(api: Api, tuned: str):
    url = str(api.database.engine.url)
    push = {"repository": "me/model", "token": TOKEN, "private": False}
    with (
        running_api(api.folder, url, engine_key="of the operator", hub_offline=False) as keyed,
        httpx.Client(base_url=keyed.url) as client,
    ):
        created = request_export(client, tuned, push_to=push)
    with api.database.reading() as session:
        task = get_owned(session, Task, "default", created["id"])
        secret = task.secret
        assert secret and TOKEN not in json.dumps([task.payload, secret])
        assert task.payload["options"]["push_to"] == {"repository": "me/model", "private": False}
    assert TOKEN.encode() not in b"".join(
        path.read_bytes() for path in api.folder.rglob("*") if path.is_file()
    )
    finish_export(api, created["id"])
    with api.database.reading() as session:
        assert get_owned(session, Task, "default", created["id"]).secret is None
