"""Classifications in Mistral's form, on an engine that follows a script."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from core.spec.bundle import BundleRef
from core.spec.classification import MAX_TEXTS
from tests.api import as_worker
from tests.api.live import Api
from tests.api.scripted_engine import ScriptedEngine

CLASSIFICATIONS = "/v1/classifications"
LONG = "Win a million with one click"
SPAM = {"label": {"scores": {"spam": 0.75, "ham": 0.25}}}
HAM = {"label": {"scores": {"spam": 0.25, "ham": 0.75}}}


@pytest.fixture
def tuned(api: Api, create_job: Callable[..., str]) -> str:
    create_job()
    return as_worker.succeed(api, as_worker.start(api))


@pytest.mark.parametrize(
    ("texts", "results"), [(LONG, [SPAM]), (["Hi", LONG, "Hello"], [HAM, SPAM, HAM])]
)
def test_every_text_gets_the_probability_of_every_label(
    client: httpx.Client, engine: ScriptedEngine, tuned: str, texts: Any, results: list[Any]
) -> None:
    body = {"model": tuned, "input": texts, "metadata": {"team": "red"}}
    answer = client.post(CLASSIFICATIONS, json=body).json()
    assert answer["id"].startswith("clsf-")
    assert answer == {"id": answer["id"], "model": tuned, "results": results}
    (asked,) = engine.classified
    assert isinstance(asked.adapter, BundleRef)
    assert asked.id == answer["id"]


def test_refusal_of_the_engine_reaches_the_client(client: httpx.Client) -> None:
    body = {"model": "tunesmith/tiny", "input": "Hi"}
    answer = client.post(CLASSIFICATIONS, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "model", "not_a_classifier")


def test_full_engine_says_when_to_come_back(client: httpx.Client, tuned: str) -> None:
    answer = client.post(CLASSIFICATIONS, json={"model": tuned, "input": "be full"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["fine", ""]}, "input"),
        ({"input": ["text"] * (MAX_TEXTS + 1)}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": None}, "input"),
        ({"model": "nobody"}, "model"),
        ({"temperature": 1}, "temperature"),
    ],
)
def test_wrong_field_is_named(
    client: httpx.Client, engine: ScriptedEngine, change: dict[str, Any], param: str
) -> None:
    body = {"model": "tunesmith/tiny", "input": "Hi"} | change
    answer = client.post(CLASSIFICATIONS, json=body)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"].partition("[")[0].partition(".")[0] == param
    assert engine.classified == []


def test_text_that_is_not_unicode_is_refused(client: httpx.Client) -> None:
    content = json.dumps({"model": "tunesmith/tiny", "input": "\ud800"})
    headers = {"content-type": "application/json"}
    answer = client.post(CLASSIFICATIONS, content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
