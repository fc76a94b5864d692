"""The form in which a tuned model is served: chosen, shown, and told to the engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from core.spec.serving import ADAPTER_FORM, ServingSpec
from migrations.upgrade import upgrade
from tests.api import as_worker
from tests.api.live import Api, running_api
from tests.api.scripted_engine import ScriptedEngine


@pytest.fixture
def make_model(api: Api, create_job: Callable[..., str]) -> Callable[..., str]:
    """`make_model(strategy=…)` returns the id of a tuned model."""

    def make(**body: Any) -> str:
        create_job(**body)
        return as_worker.succeed(api, as_worker.start(api))

    return make


def test_form_is_shown_and_goes_to_the_engine_with_every_request(
    client: httpx.Client, engine: ScriptedEngine, make_model: Callable[..., str]
) -> None:
    tuned = make_model()
    path = f"/v1/models/{quote(tuned, safe='')}"
    shown = client.get(path).json()
    assert shown["serving"] == {"form": "adapter", "quantization": None}
    for body in (
        {"form": "merged"},
        {"form": "merged", "quantization": "nf4"},
        {"form": "merged", "quantization": "int8"},
        {"form": "adapter"},
        {"form": "adapter", "quantization": None},
    ):
        expected = {"quantization": None} | body
        assert client.post(f"{path}/serving", json=body).json() == shown | {"serving": expected}
        assert client.get(path).json()["serving"] == expected
        listed = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
        assert listed[tuned]["serving"] == expected
        chat = {"model": tuned, "messages": [{"role": "user", "content": "a"}]}
        client.post("/v1/chat/completions", json=chat)
        client.post("/v1/completions", json={"model": tuned, "prompt": "a"})
        client.post("/v1/classifications", json={"model": tuned, "input": "a"})
        asked = [*engine.requests[-2:], engine.classified[-1]]
        assert {each.serving for each in asked} == {ServingSpec.model_validate(body)}


def test_a_checkpoint_has_a_form_of_its_own(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    create_job()
    held = as_worker.start(api)
    as_worker.save_checkpoint(api, held, 5)
    tuned = as_worker.succeed(api, held)
    checkpoint = f"/v1/models/{tuned}:ckpt-step-5"
    assert client.post(f"{checkpoint}/serving", json={"form": "merged"}).status_code == 200
    assert client.get(checkpoint).json()["serving"]["form"] == "merged"
    assert client.get(f"/v1/models/{tuned}").json()["serving"]["form"] == "adapter"


@pytest.mark.parametrize("strategy", ["bottleneck", "prefix", "prompt"])
def test_what_cannot_be_merged_is_refused_with_the_reason(
    client: httpx.Client, make_model: Callable[..., str], strategy: str
) -> None:
    tuned = make_model(strategy={"type": strategy})
    answer = client.post(f"/v1/models/{tuned}/serving", json={"form": "merged"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "not_mergeable", "form")
    assert f"its strategy {strategy} adds" in error["message"]
    assert client.get(f"/v1/models/{tuned}").json()["serving"]["form"] == "adapter"


@pytest.mark.parametrize("strategy", ["lora", "qlora", "full"])
def test_what_is_a_change_of_weights_can_be_merged(
    client: httpx.Client, make_model: Callable[..., str], strategy: str
) -> None:
    tuned = make_model(strategy={"type": strategy})
    body = {"form": "merged", "quantization": "nf4"}
    assert client.post(f"/v1/models/{tuned}/serving", json=body).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "form"),
        ({"form": "whole"}, "form"),
        ({"form": None}, "form"),
        ({"form": "merged", "quantization": "int3"}, "quantization"),
        ({"form": "merged", "quantization": 10**12}, "quantization"),
        ({"form": "adapter", "quantization": "nf4"}, "quantization"),
        ({"form": "merged", "bits": 4}, "bits"),
        ([], None),
    ],
)
def test_a_wrong_body_is_refused_by_its_field(
    client: httpx.Client, make_model: Callable[..., str], body: Any, param: str | None
) -> None:
    answer = client.post(f"/v1/models/{make_model()}/serving", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_bases_and_unknown_models_have_no_form_to_choose(client: httpx.Client) -> None:
    answer = client.post("/v1/models/tunesmith/tiny/serving", json={"form": "merged"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_tuned")
    unknown = "ft:tunesmith/tiny:default::abcdefgh"
    answer = client.post(f"/v1/models/{unknown}/serving", json={"form": "merged"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_a_base_can_be_listed_plain_and_quantized(tmp_path: Path, engine: ScriptedEngine) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(
        '[[bases]]\nid = "tiny-nf4"\nsource = "package:core/models/tiny"\nquantization = "nf4"\n'
    )
    database_url = f"sqlite:///{tmp_path / 'tunesmith.db'}"
    upgrade(database_url)
    with (
        running_api(tmp_path, database_url, "http://127.0.0.1:9", catalog_file=catalog) as api,
        httpx.Client(base_url=api.url, trust_env=False) as client,
    ):
        shown = {
            each["id"]: each["serving"]["quantization"]
            for each in client.get("/v1/models").json()["data"]
        }
    assert (shown["tunesmith/tiny"], shown["tiny-nf4"]) == (None, "nf4")


def test_ignore_eos_reaches_the_engine_and_contradicts_a_form(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    chat = {"model": "tunesmith/tiny", "messages": [{"role": "user", "content": "a"}]}
    client.post("/v1/chat/completions", json=chat | {"ignore_eos": True})
    client.post(
        "/v1/completions", json={"model": "tunesmith/tiny", "prompt": "a", "ignore_eos": True}
    )
    assert all(each.sampling.ignore_eos for each in engine.requests)
    assert all(each.serving == ADAPTER_FORM for each in engine.requests)
    form = {"response_format": {"type": "json_object"}, "ignore_eos": True}
    answer = client.post("/v1/chat/completions", json=chat | form)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "ignore_eos")
