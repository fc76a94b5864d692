"""Every kind of answer can be sent back as it came, by the stock client and with its additions."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from core.datasets.chat import parse_conversation
from core.datasets.row_errors import RowErrors
from core.spec.generation import ChatPrompt
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER, ScriptedEngine

CHAT = "/v1/chat/completions"
ADD = {
    "name": "add",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    },
}
TOOLS = [{"type": "function", "function": {**ADD, "strict": True}}]

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("What is the answer?", {}),
    "logprobs": ("What is the answer?", {"logprobs": True, "top_logprobs": 2}),
    "calls": ("call twice", {"tools": TOOLS}),
    "one call": ("call twice", {"tools": TOOLS, "parallel_tool_calls": False}),
    "reasoning": ("think first", {}),
    "function call": ("call twice", {"functions": [ADD]}),
}
"""What to ask for each kind of answer, and with which options."""


@pytest.fixture
def stock(api: Api) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def history_at(engine: ScriptedEngine) -> list[dict[str, Any]]:
    """The messages of the last request as a template gets them, which must have no error."""
    prompt = engine.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    errors = RowErrors()
    with errors.bounded():
        parsed = parse_conversation(list(prompt.messages), errors)
    assert errors.found == ()
    return list(parsed)


def results_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A result for each call of an answer."""
    if call := message.get("function_call"):
        return [{"role": "function", "name": call["name"], "content": "3"}]
    calls = message.get("tool_calls") or []
    return [{"role": "tool", "tool_call_id": call["id"], "content": "3"} for call in calls]


def send_back(
    client: httpx.Client, engine: ScriptedEngine, question: str, answer: dict[str, Any]
) -> list[dict[str, Any]]:
    messages = [
        {"role": "user", "content": question},
        answer,
        *results_of(answer),
        {"role": "user", "content": "And now?"},
    ]
    sent = client.post(CHAT, json={"model": "tunesmith/tiny", "messages": messages})
    assert sent.status_code == 200, sent.text
    return history_at(engine)


def check(kind: str, history: list[dict[str, Any]]) -> None:
    answer = history[1]
    calls = [call["function"] for call in answer.get("tool_calls", ())]
    match kind:
        case "calls":
            assert [call["arguments"] for call in calls] == [{"a": 1}, {"a": 2}]
        case "one call" | "function call":
            assert calls == [{"name": "add", "arguments": {"a": 1}}]
        case "reasoning":
            assert answer["reasoning_content"] == "Six times seven. Done."
            assert answer["content"] == "42"
        case _:
            assert answer["content"] == ANSWER
    assert [each["role"] for each in history[2:-1]] == ["tool"] * len(calls)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_can_be_sent_back_verbatim(
    client: httpx.Client, engine: ScriptedEngine, kind: str
) -> None:
    question, options = KINDS[kind]
    messages = [{"role": "user", "content": question}]
    body = {"model": "tunesmith/tiny", "messages": messages, **options}
    answer = client.post(CHAT, json=body).json()["choices"][0]["message"]
    check(kind, send_back(client, engine, question, answer))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["create", "parse", "stream"])
def test_what_the_stock_client_makes_of_an_answer_can_be_sent_back(
    client: httpx.Client, stock: openai.OpenAI, engine: ScriptedEngine, kind: str, way: str
) -> None:
    question, options = KINDS[kind]
    if way == "stream" and kind == "function call":
        pytest.skip("its helper joins no older function calls")
    asked: Any = {
        "model": "tunesmith/tiny",
        "messages": [{"role": "user", "content": question}],
        **options,
    }
    chat = stock.chat.completions
    message: Any
    match way:
        case "create":
            message = chat.create(**asked).choices[0].message
        case "parse":
            message = chat.parse(**asked).choices[0].message
        case _:
            with chat.stream(**asked) as events:
                message = events.get_final_completion().choices[0].message
    check(kind, send_back(client, engine, question, message.model_dump()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_joined_deltas_of_a_stream_can_be_sent_back(
    client: httpx.Client, stock: openai.OpenAI, engine: ScriptedEngine, kind: str
) -> None:
    question, options = KINDS[kind]
    asked: Any = {
        "model": "tunesmith/tiny",
        "messages": [{"role": "user", "content": question}],
        "stream": True,
        **options,
    }
    joined: dict[str, Any] = {}
    for chunk in stock.chat.completions.create(**asked):
        for key, value in chunk.choices[0].delta.model_dump(exclude_unset=True).items():
            if isinstance(value, str | list):
                joined[key] = joined[key] + value if key in joined else value
            else:
                joined[key] = value
    check(kind, send_back(client, engine, question, joined))
