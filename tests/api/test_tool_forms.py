"""The forms in which clients send tools, choices, formats and neutral fields."""

import json
from typing import Any

import httpx
import pytest

from core.spec.generation import (
    ChatPrompt,
    GrammarOutput,
    JsonObjectOutput,
    RegexOutput,
    SchemaOutput,
    ToolCallOutput,
)
from tests.api.scripted_engine import ScriptedEngine
from tests.contract.contract import check_schema

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def chat(content: str = "What is the answer?", **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": "tunesmith/tiny", "messages": messages} | options


def function(name: str) -> dict[str, Any]:
    return {"name": name, "parameters": {"type": "object"}}


def tools(*names: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": function(name)} for name in names]


def allowed(mode: str, *names: str) -> dict[str, Any]:
    some = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": some}}


def chunks_of(client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.post(CHAT, json=body | {"stream": True})
    *events, _ = answer.text.strip().split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    for chunk in chunks:
        check_schema("CreateChatCompletionStreamResponse", chunk)
    return chunks


def offered(engine: ScriptedEngine) -> list[str]:
    prompt = engine.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return [tool["function"]["name"] for tool in prompt.tools]


@pytest.mark.parametrize(
    ("choice", "names", "form"),
    [
        (allowed("auto", "b", "c"), ["b", "c"], None),
        (allowed("required", "b"), ["b"], ToolCallOutput()),
        ({"type": "function", "name": "b"}, ["a", "b", "c"], ToolCallOutput(name="b")),
        ({"name": "b"}, ["a", "b", "c"], ToolCallOutput(name="b")),
        ({"function": {"name": "b"}}, ["a", "b", "c"], ToolCallOutput(name="b")),
        (None, ["a", "b", "c"], None),
    ],
)
def test_a_choice_is_taken_in_every_form(
    client: httpx.Client,
    engine: ScriptedEngine,
    choice: Any,
    names: list[str],
    form: ToolCallOutput | None,
) -> None:
    body = chat(tools=tools("a", "b", "c"), tool_choice=choice)
    assert client.post(CHAT, json=body).status_code == 200
    assert offered(engine) == names
    assert engine.requests[-1].sampling.structured_output == form


@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"tool_choice": allowed("auto", "ad")}, "tool_choice", "Did you mean 'add'?"),
        ({"tool_choice": {"name": "ad"}}, "tool_choice", "Did you mean 'add'?"),
        ({"tool_choice": {"type": "custom", "name": "add"}}, "tool_choice", "'allowed_tools'"),
        ({"tool_choice": allowed("always", "add")}, "tool_choice.allowed_tools.mode", "'auto'"),
        (
            {"tools": [], "functions": [function("f")], "function_call": {"name": "g"}},
            "function_call",
            "'g'",
        ),
        ({"functions": [function("f")]}, "functions", "older form"),
        (
            {"tools": [], "functions": [{"name": "f", "paramters": {}}]},
            "functions[0].paramters",
            "Did you mean 'parameters'?",
        ),
        ({"response_format": {"type": "xml", "value": "<a/>"}}, "response_format.type", "'regex'"),
        ({"response_format": {"type": "regex", "value": ""}}, "response_format", "1 char"),
        ({"response_format": {"type": "json_objct"}}, "response_format.type", "'json_object'?"),
    ],
)
def test_a_wrong_choice_is_refused_with_a_hint(
    client: httpx.Client, options: dict[str, Any], param: str, says: str
) -> None:
    answer = client.post(CHAT, json=chat(tools=tools("add")) | options)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert says in error["message"]


def test_the_older_functions_get_the_older_call(client: httpx.Client) -> None:
    body = chat("call twice", functions=[function("add")], function_call="auto")
    (choice,) = client.post(CHAT, json=body).json()["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "add", "arguments": '{"a": 1}'}
    assert "tool_calls" not in choice["message"]
    chunks = [chunk["choices"][0] for chunk in chunks_of(client, body)]
    calls = [each["delta"]["function_call"] for each in chunks if "function_call" in each["delta"]]
    assert calls == [{"name": "add", "arguments": '{"a": 1}'}]
    assert chunks[-1]["finish_reason"] == "function_call"


@pytest.mark.parametrize(
    ("call", "names", "form"),
    [
        ("none", [], None),
        ("auto", ["add"], None),
        ({"name": "add"}, ["add"], ToolCallOutput(name="add")),
    ],
)
def test_the_older_function_call_chooses(
    client: httpx.Client,
    engine: ScriptedEngine,
    call: Any,
    names: list[str],
    form: ToolCallOutput | None,
) -> None:
    body = chat(functions=[function("add")], function_call=call)
    assert client.post(CHAT, json=body).status_code == 200
    assert offered(engine) == names
    assert engine.requests[-1].sampling.structured_output == form


@pytest.mark.parametrize(("parallel", "count"), [(False, 1), (True, 2), (None, 2)])
def test_without_parallel_calls_there_is_one(
    client: httpx.Client, parallel: bool | None, count: int
) -> None:
    body = chat("call twice", tools=tools("add"), parallel_tool_calls=parallel)
    (choice,) = client.post(CHAT, json=body).json()["choices"]
    assert len(choice["message"]["tool_calls"]) == count
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(client, body)]
    streamed = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [call["index"] for call in streamed] == list(range(count))


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
        {"type": "json_schema", "value": {"name": "a", "schema": SCHEMA}},
        {"type": "json_object", "value": SCHEMA},
        {"type": "json", "value": SCHEMA},
        {"type": "json_object", "schema": SCHEMA},
    ],
)
def test_a_schema_is_taken_in_every_form(
    client: httpx.Client, engine: ScriptedEngine, response_format: dict[str, Any]
) -> None:
    assert client.post(CHAT, json=chat(response_format=response_format)).status_code == 200
    assert engine.requests[-1].sampling.structured_output == SchemaOutput(json_schema=SCHEMA)


@pytest.mark.parametrize(
    ("response_format", "output"),
    [
        ({"type": "regex", "value": "a+"}, RegexOutput(regex="a+", param="response_format")),
        ({"type": "regex", "pattern": "a+"}, RegexOutput(regex="a+", param="response_format")),
        (
            {"type": "grammar", "grammar": 'start: "a"'},
            GrammarOutput(grammar='start: "a"', param="response_format"),
        ),
    ],
)
def test_a_format_of_other_servers_is_a_constraint(
    client: httpx.Client,
    engine: ScriptedEngine,
    response_format: dict[str, Any],
    output: RegexOutput | GrammarOutput,
) -> None:
    assert client.post(CHAT, json=chat(response_format=response_format)).status_code == 200
    assert engine.requests[-1].sampling.structured_output == output


def test_an_object_without_a_schema_is_any_object(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    assert client.post(CHAT, json=chat(response_format={"type": "json_object"})).status_code == 200
    assert engine.requests[-1].sampling.structured_output == JsonObjectOutput()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_tokens": 2, "max_completion_tokens": 2}, 2),
        ({"max_tokens": 1, "max_completion_tokens": 3}, 3),
        ({"max_tokens": 1, "max_completion_tokens": None}, 1),
    ],
)
def test_of_two_limits_the_newer_name_counts(
    client: httpx.Client, limits: dict[str, Any], words: int
) -> None:
    (choice,) = client.post(CHAT, json=chat(**limits)).json()["choices"]
    assert len(choice["message"]["content"].split()) == words


NEUTRAL: dict[str, Any] = {
    "frequency_penalty": None,
    "logit_bias": None,
    "metadata": None,
    "n": None,
    "presence_penalty": None,
    "prompt_cache_key": "k",
    "reasoning_effort": "low",
    "safety_identifier": "me",
    "seed": None,
    "service_tier": "auto",
    "stop": [],
    "store": False,
    "stream": False,
    "stream_options": None,
    "temperature": None,
    "top_p": None,
    "user": None,
}
OF_CHAT: dict[str, Any] = {
    "audio": None,
    "function_call": None,
    "functions": [],
    "logprobs": False,
    "max_completion_tokens": None,
    "modalities": ["text"],
    "parallel_tool_calls": None,
    "prediction": {"type": "content", "content": "The answer"},
    "response_format": None,
    "tool_choice": "none",
    "tools": [],
    "top_logprobs": None,
    "verbosity": "low",
    "web_search_options": None,
}
OF_COMPLETIONS: dict[str, Any] = {
    "best_of": 1,
    "echo": False,
    "logprobs": None,
    "max_tokens": None,
    "suffix": "",
}


@pytest.mark.parametrize("name", NEUTRAL | OF_CHAT)
def test_neutral_fields_of_a_chat_change_nothing(client: httpx.Client, name: str) -> None:
    body = chat(**{name: {**NEUTRAL, **OF_CHAT}[name]})
    assert client.post(CHAT, json=body).status_code == 200


def test_neutral_fields_of_a_completion_change_nothing(client: httpx.Client) -> None:
    body = {"model": "tunesmith/tiny", "prompt": "hello", **NEUTRAL, **OF_COMPLETIONS}
    answer = client.post(COMPLETIONS, json=body)
    assert answer.status_code == 200, answer.text


def test_a_tool_with_prompt_caching_of_another_provider_is_taken(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    (tool,) = tools("add")
    cached = {**tool, "cache_control": {"type": "ephemeral"}}
    assert client.post(CHAT, json=chat(tools=[cached])).status_code == 200
    prompt = engine.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.tools == (tool,)


@pytest.mark.parametrize(
    ("url", "body", "field", "meant"),
    [
        (CHAT, chat(), "temprature", "temperature"),
        (CHAT, chat(), "max_token", "max_tokens"),
        (CHAT, chat(), "stream_otpions", "stream_options"),
        (COMPLETIONS, {"model": "tunesmith/tiny", "prompt": "a"}, "max_tokns", "max_tokens"),
        ("/v1/classifications", {"model": "x", "input": "a"}, "imput", "input"),
    ],
)
def test_an_unknown_field_comes_with_a_hint(
    client: httpx.Client, url: str, body: dict[str, Any], field: str, meant: str
) -> None:
    error = client.post(url, json=body | {field: 1}).json()["error"]
    assert error["code"] == "unknown_parameter"
    assert error["message"].endswith(f"Did you mean {meant!r}?")


@pytest.mark.parametrize("wrong", [True, "1", 2.0], ids=["boolean", "string", "decimal"])
@pytest.mark.parametrize(
    ("url", "field"),
    [
        (CHAT, "max_tokens"),
        (CHAT, "n"),
        (CHAT, "seed"),
        (CHAT, "top_logprobs"),
        (COMPLETIONS, "logprobs"),
        (COMPLETIONS, "best_of"),
    ],
)
def test_an_integer_is_an_integer(
    client: httpx.Client, url: str, field: str, wrong: object
) -> None:
    body = chat() if url == CHAT else {"model": "tunesmith/tiny", "prompt": "a"}
    answer = client.post(url, json=body | {field: wrong})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, field)
    assert "it must be an integer, not a" in error["message"]


@pytest.mark.parametrize(
    ("field", "wrong"), [("temperature", True), ("top_p", "1"), ("stream", 1), ("stream", "true")]
)
def test_a_number_is_a_number_and_a_flag_a_flag(
    client: httpx.Client, field: str, wrong: object
) -> None:
    answer = client.post(CHAT, json=chat(**{field: wrong}))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


def test_a_number_may_be_an_integer(client: httpx.Client) -> None:
    assert client.post(CHAT, json=chat(temperature=1, top_p=1)).status_code == 200
