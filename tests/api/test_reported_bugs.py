"""Faults of clients with OpenAI-compatible servers that people have reported, each tried here.

The number of a report stands with each test; `docs/lab-notes.md` has the list.
"""

import json
from typing import Any

import httpx
import pytest

from core.datasets.chat import parse_conversation
from core.datasets.row_errors import RowErrors
from core.spec.generation import ChatPrompt
from tests.api.scripted_engine import ScriptedEngine

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "What is the answer?"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "3"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def answered(**message: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "42", **message}


HISTORIES: dict[str, list[dict[str, Any]]] = {
    "vllm#10463, extra keys of an editor": [{**USER, "id": 1947269257, "opts": {"visible": False}}],
    "litellm#30835, reasoning sent back": [USER, answered(reasoning_content="6 * 7"), USER],
    "pi#4514, reasoning and no text": [USER, answered(content=[], reasoning="6 * 7"), USER],
    "opencode#23193, a null refusal": [USER, answered(refusal=None), USER],
    "lmstudio-bug-tracker#261, null beside a call": [USER, CALLED, RESULT],
    "llama-cpp-python#1805, no content beside a call": [
        USER,
        {"role": "assistant", "tool_calls": [CALL]},
        RESULT,
    ],
    "rig#1362, an empty list beside a call": [USER, {**CALLED, "content": []}, RESULT],
    "vllm#21089, an empty answer": [USER, answered(content=""), USER],
    "mcp-agent#328, a tool that returns nothing": [USER, CALLED, {**RESULT, "content": None}],
    "mcp-agent#328, a tool that returns an empty list": [USER, CALLED, {**RESULT, "content": []}],
    "copilot-cli#4884, text beside a call": [USER, {**CALLED, "content": "Let me see."}, RESULT],
    "extended_openai_conversation#365, no calls": [USER, answered(tool_calls=[]), USER],
}


@pytest.mark.parametrize("messages", HISTORIES.values(), ids=HISTORIES.keys())
def test_a_history_is_accepted(
    client: httpx.Client, engine: ScriptedEngine, messages: list[dict[str, Any]]
) -> None:
    body = {"model": "tunesmith/tiny", "messages": messages, "tools": [TOOL]}
    assert client.post(CHAT, json=body).status_code == 200
    prompt = engine.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    errors = RowErrors()
    with errors.bounded():
        parsed = parse_conversation(list(prompt.messages), errors)
    assert errors.found == ()
    assert [bool(each.get("tool_calls")) for each in parsed] == [
        bool(each.get("tool_calls")) for each in messages
    ]


def test_no_tools_and_no_choice_are_accepted(client: httpx.Client) -> None:
    """vllm#49346: a list without tools was an error beside a choice of none."""
    body = {"model": "tunesmith/tiny", "messages": [USER], "tools": [], "tool_choice": "none"}
    assert client.post(CHAT, json=body).status_code == 200


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}])
def test_chunks_are_those_of_openai(client: httpx.Client, options: dict[str, Any]) -> None:
    """sglang#3912, ollama#4357, vllm#19662, cline#8518.

    There, the finish reason of a chunk was "" or missing instead of null, and a chunk without
    choices came without being asked for.
    """
    body = {"model": "tunesmith/tiny", "messages": [USER], "stream": True, **options}
    *events, _ = client.post(CHAT, json=body).text.strip().split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    without = [chunk for chunk in chunks if not chunk["choices"]]
    assert without == (chunks[-1:] if options else [])
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert all("tool_calls" not in c["delta"] for chunk in chunks for c in chunk["choices"])


def test_an_answer_without_calls_has_no_list_of_calls(client: httpx.Client) -> None:
    """extended_openai_conversation#365: an empty list made a client ask again for ever."""
    body = {"model": "tunesmith/tiny", "messages": [USER], "tools": [TOOL]}
    assert "tool_calls" not in client.post(CHAT, json=body).json()["choices"][0]["message"]


def test_a_misspelled_option_comes_with_a_hint(client: httpx.Client) -> None:
    """gpustack#429: the field at fault was in the middle of a dump of the validator."""
    body = {"model": "tunesmith/tiny", "messages": [USER], "stream_otpions": {}}
    assert client.post(CHAT, json=body).json()["error"]["message"] == (
        "Unknown parameter: 'stream_otpions'. Did you mean 'stream_options'?"
    )
