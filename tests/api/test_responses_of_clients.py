"""What other programs send on their default path, as recorded, with the ids of this service.

openai-agents 0.24, pydantic-ai 2.68 and the AI SDK 6.0 with @ai-sdk/openai 3.0. They were run
unmodified against this API; the forms of their second requests differ.
"""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from core.spec.generation import ChatPrompt
from tests.api.scripted_engine import ANSWER, ScriptedEngine
from tests.api.test_responses import create, messages, text_of

SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {"a": {"type": "number"}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "name": "add", "description": None, "parameters": SCHEMA}

Items = list[dict[str, Any]]


def outputs(output: Items) -> Items:
    return [
        {"call_id": item["call_id"], "output": "3", "type": "function_call_output"}
        for item in output
    ]


def bare(output: Items) -> Items:
    """Calls without ids and states."""
    return [{key: item[key] for key in ("type", "call_id", "name", "arguments")} for item in output]


TOOL_LOOPS: dict[str, Callable[[Items], Items]] = {
    "openai-agents": lambda output: [
        {"role": "user", "content": "call twice"},
        *output,
        *outputs(output),
    ],
    "pydantic-ai": lambda output: [
        {"role": "user", "content": "call twice"},
        *bare(output),
        *outputs(output),
    ],
    "AI SDK": lambda output: [
        {"role": "user", "content": [{"type": "input_text", "text": "call twice"}]},
        *bare(output),
        *outputs(output),
    ],
}


@pytest.mark.parametrize("name", TOOL_LOOPS)
def test_tool_loops(client: httpx.Client, engine: ScriptedEngine, name: str) -> None:
    tools = [TOOL | ({} if name == "AI SDK" else {"strict": True})]
    asked: dict[str, Any] = {"tools": tools, "include": [], "tool_choice": "auto"}
    first = create(client, [{"role": "user", "content": "call twice"}], **asked)
    second = create(client, TOOL_LOOPS[name](first["output"]), **asked)
    assert text_of(second) == ANSWER
    assert messages(engine) == [
        ("user", "call twice"),
        ("assistant", ""),
        ("tool", "3"),
        ("tool", "3"),
    ]


def reasoning(output: Items) -> Items:
    thought, said = output
    text = thought["content"][0]["text"]
    return [
        {
            "id": thought["id"],
            "summary": [],
            "encrypted_content": None,
            "type": "reasoning",
            "content": [{"text": text, "type": "reasoning_text"}],
        },
        {"role": "assistant", "content": said["content"][0]["text"]},
    ]


HISTORIES: dict[str, Callable[[Items], Items]] = {
    "openai-agents": lambda output: output,
    "pydantic-ai": reasoning,
    "AI SDK": lambda output: [{"type": "item_reference", "id": item["id"]} for item in output],
    "AI SDK, store: false": lambda output: [
        {
            "role": "assistant",
            "content": [{"type": "output_text", "text": output[1]["content"][0]["text"]}],
            "id": output[1]["id"],
        }
    ],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_histories(client: httpx.Client, engine: ScriptedEngine, name: str) -> None:
    question = {"role": "user", "content": "think first"}
    output = create(client, [question])["output"]
    create(client, [question, *HISTORIES[name](output), {"role": "user", "content": "And now?"}])
    prompt = engine.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    user, turn, _ = prompt.messages
    assert (user["content"], turn["content"]) == ("think first", "42")
    has_thought = name != "AI SDK, store: false"
    assert turn.get("reasoning_content") == ("Six times seven. Done." if has_thought else None)
