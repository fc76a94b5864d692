"""Reasoning beside the text, and what a request tells the chat template."""

from typing import Any

import httpx
import pytest

from core.spec.generation import ChatPrompt, SchemaOutput
from tests.api.scripted_engine import ScriptedEngine
from tests.api.test_chat import CHAT, chat, chunks_of, streamed_text


def test_reasoning_stands_beside_the_text(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=chat("think first")).json()
    message = answer["choices"][0]["message"]
    assert message["reasoning_content"] == "Six times seven. Done."
    assert message["content"] == "42"
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 6}


def test_reasoning_is_streamed_under_its_own_name(client: httpx.Client) -> None:
    body = chat("think first", stream_options={"include_usage": True})
    chunks = chunks_of(client, body)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    thoughts = [delta.get("reasoning_content", "") for delta in deltas]
    assert "".join(thoughts) == "Six times seven. Done."
    assert {"reasoning_content": "Six times "} in deltas, "no empty content beside it"
    assert streamed_text(chunks) == "42"
    assert chunks[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 6}


def test_an_answer_without_reasoning_says_nothing_of_it(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=chat()).json()
    assert "reasoning_content" not in answer["choices"][0]["message"]
    assert "completion_tokens_details" not in answer["usage"]


def test_variables_go_to_the_template(client: httpx.Client, engine: ScriptedEngine) -> None:
    body = chat(chat_template_kwargs={"enable_thinking": False}, reasoning_effort="low")
    assert client.post(CHAT, json=body).status_code == 200
    prompt = engine.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.template_kwargs == {"enable_thinking": False, "reasoning_effort": "low"}


@pytest.mark.parametrize("effort", [{}, {"reasoning_effort": None}], ids=["absent", "null"])
def test_without_an_effort_the_template_is_told_none(
    client: httpx.Client, engine: ScriptedEngine, effort: dict[str, Any]
) -> None:
    assert client.post(CHAT, json=chat(**effort)).status_code == 200
    prompt = engine.requests[0].prompt
    assert isinstance(prompt, ChatPrompt) and prompt.template_kwargs == {}


DEEP: Any = 1
for _ in range(20):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "variables",
    [
        {"messages": []},
        {"tools": []},
        {"add_generation_prompt": False},
        {"bos_token": "x"},
        {"chat_template": "x"},
        {"__class__": 1},
        {"not a name": 1},
        {"deep": DEEP},
        {"long": "x" * 20_000},
        {f"v{number}": 1 for number in range(33)},
        [],
    ],
    ids=lambda variables: str(variables)[:20],
)
def test_variables_of_ours_and_beyond_bounds_are_refused(
    client: httpx.Client, engine: ScriptedEngine, variables: Any
) -> None:
    answer = client.post(CHAT, json=chat(chat_template_kwargs=variables))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "chat_template_kwargs"
    assert engine.requests == []


def test_an_unknown_effort_and_one_given_twice_are_refused(client: httpx.Client) -> None:
    twice = {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}}
    for options in ({"reasoning_effort": "very"}, twice):
        answer = client.post(CHAT, json=chat(**options))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "reasoning_effort")


@pytest.mark.parametrize("number", [2**63 - 1, 2**64, -(10**30)])
def test_integers_of_a_schema_may_be_long(
    client: httpx.Client, engine: ScriptedEngine, number: int
) -> None:
    schema = {"type": "integer", "maximum": number}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert client.post(CHAT, json=chat(response_format=form)).status_code == 200
    assert engine.requests[0].sampling.structured_output == SchemaOutput(json_schema=schema)
