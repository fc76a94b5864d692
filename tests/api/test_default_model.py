"""The model that answers when a client names none of ours."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.live import running_api
from tests.api.scripted_engine import ScriptedEngine
from tests.contract.contract import CheckedClient

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "What is the answer?"}]


def ask(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post(CHAT, json={"messages": MESSAGES, **body})


@pytest.fixture
def forgiving(tmp_path: Path, sqlite_url: str, engine: ScriptedEngine) -> Iterator[CheckedClient]:
    """A client of a service with a default model."""
    engine.mood = "well"
    with (
        running_api(tmp_path, sqlite_url, engine.url, default_model="tunesmith/tiny") as api,
        CheckedClient(base_url=api.url, timeout=120) as client,
    ):
        yield client


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}, {"model": "dummy"}])
def test_the_default_model_answers_and_is_named(
    forgiving: httpx.Client, body: dict[str, Any]
) -> None:
    answer = ask(forgiving, **body)
    assert (answer.status_code, answer.json()["model"]) == (200, "tunesmith/tiny")
    text = forgiving.post("/v1/completions", json={"prompt": "hello", **body})
    assert text.json()["model"] == "tunesmith/tiny"


def test_a_tuned_model_is_never_replaced(forgiving: httpx.Client) -> None:
    answer = ask(forgiving, model="ft:tunesmith/tiny:default::abcdefgh")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_other_routes_know_no_default(forgiving: httpx.Client) -> None:
    assert forgiving.get("/v1/models/dummy").status_code == 404
    body = {"model": "dummy", "training_file": "file-none"}
    assert forgiving.post("/v1/fine_tuning/jobs", json=body).status_code == 404


def test_a_wrong_default_is_named(tmp_path: Path, sqlite_url: str) -> None:
    with (
        running_api(tmp_path, sqlite_url, default_model="nobody") as api,
        CheckedClient(base_url=api.url, timeout=120) as client,
    ):
        message = ask(client, model="dummy").json()["error"]["message"]
        assert "'nobody'" in message


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}])
def test_without_a_default_a_request_names_its_model(
    client: httpx.Client, body: dict[str, Any]
) -> None:
    error = ask(client, **body).json()["error"]
    assert (error["code"], error["param"]) == ("missing_required_parameter", "model")


def test_without_a_default_an_unknown_name_is_not_found(client: httpx.Client) -> None:
    answer = ask(client, model="tunesmith/tinny")
    assert answer.status_code == 404
    assert "Did you mean: tunesmith/tiny" in answer.json()["error"]["message"]
