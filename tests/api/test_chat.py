"""Chat completions, on an engine that follows a script."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from core.spec.bundle import BundleRef
from core.spec.generation import ChatPrompt, SchemaOutput, ToolCallOutput
from tests.api import as_worker
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER, CONTEXT_LENGTH, ScriptedEngine
from tests.contract.contract import check_schema
from tests.leaving import leave_when

CHAT = "/v1/chat/completions"


def chat(content: str = "What is the answer?", **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": "tunesmith/tiny", "messages": messages} | options


def chunks_of(client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a stream that ends well, each held against the contract."""
    answer = client.post(CHAT, json=body | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, last = answer.text.strip().split("\n\n")
    assert last == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    for chunk in chunks:
        check_schema("CreateChatCompletionStreamResponse", chunk)
    return chunks


def streamed_text(chunks: list[dict[str, Any]], index: int = 0) -> str:
    return "".join(
        choice["delta"].get("content", "")
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["index"] == index
    )


def test_answer_has_text_reason_and_usage(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=chat()).json()
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": ANSWER, "refusal": None}
    assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8}
    assert answer["model"] == "tunesmith/tiny"
    assert answer["id"].startswith("chatcmpl-")


def test_stream_says_the_same_as_the_plain_answer(client: httpx.Client) -> None:
    chunks = chunks_of(client, chat())
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert streamed_text(chunks) == ANSWER
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 5 + ["stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert not any("usage" in chunk for chunk in chunks)


def test_stream_ends_with_the_usage_when_asked(client: httpx.Client) -> None:
    chunks = chunks_of(client, chat(stream_options={"include_usage": True}))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 8
    assert {json.dumps(chunk["usage"]) for chunk in chunks[:-1]} == {"null"}


def test_n_choices_are_counted_once_in_the_prompt(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=chat(n=3)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 12, "total_tokens": 16}
    chunks = chunks_of(client, chat(n=3))
    assert [streamed_text(chunks, index) for index in range(3)] == [ANSWER] * 3


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_length_is_limited_under_either_name(client: httpx.Client, name: str) -> None:
    (choice,) = client.post(CHAT, json=chat(**{name: 2})).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("The answer", "length")


def test_logprobs_come_with_the_best_alternatives(client: httpx.Client) -> None:
    body = chat(logprobs=True, top_logprobs=2)
    (choice,) = client.post(CHAT, json=body).json()["choices"]
    content = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in content) == ANSWER
    assert content[0]["bytes"] == list(b"The")
    assert [other["logprob"] for other in content[0]["top_logprobs"]] == [-0.5, -1.0]
    streamed = [
        token
        for chunk in chunks_of(client, body)
        if chunk["choices"][0]["logprobs"]
        for token in chunk["choices"][0]["logprobs"]["content"]
    ]
    assert streamed == content


def test_request_reaches_the_engine_as_it_was_meant(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    body = chat(
        temperature=0.5, top_p=0.9, seed=-1, stop="tw", n=2, tools=[tool], user="me", store=True
    )
    answer = client.post(CHAT, json=body).json()
    assert answer["choices"][0]["message"]["content"] == "The answer is forty-"
    (asked,) = engine.requests
    assert isinstance(asked.prompt, ChatPrompt)
    assert asked.prompt.messages == tuple(body["messages"])
    assert asked.prompt.tools == (tool,)
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.n) == (0.5, 0.9, 2)
    assert (sampling.stop, sampling.seed) == (("tw",), 2**63 - 1)
    assert (sampling.max_tokens, sampling.top_logprobs) == (None, None)
    assert (asked.base.id, asked.adapter) == ("tunesmith/tiny", None)


def test_tools_stay_out_when_none_is_to_be_chosen(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    client.post(CHAT, json=chat(tools=[TOOL], tool_choice="none"))
    prompt = engine.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.tools == ()


def test_without_a_seed_every_request_has_its_own(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    for _ in range(2):
        client.post(CHAT, json=chat(seed=None, temperature=None, max_tokens=None))
    assert engine.requests[0].sampling.seed != engine.requests[1].sampling.seed


def test_tuned_model_is_asked_for_with_its_bundle(
    api: Api, client: httpx.Client, engine: ScriptedEngine, create_job: Callable[..., str]
) -> None:
    create_job()
    held = as_worker.start(api)
    as_worker.save_checkpoint(api, held, 5)
    tuned = as_worker.succeed(api, held)
    for model, file in ((tuned, "final.zip"), (f"{tuned}:ckpt-step-5", "step-5.zip")):
        answer = client.post(CHAT, json=chat(model=model))
        assert answer.json()["model"] == model
        adapter = engine.requests[-1].adapter
        assert isinstance(adapter, BundleRef)
        assert adapter.key == f"bundles/{held.job_id}/{held.token}/{file}"
        assert len(adapter.sha256) == 64
        assert engine.requests[-1].base.id == "tunesmith/tiny"


def test_text_with_strange_line_ends_survives(client: httpx.Client) -> None:
    strange = "é\u2028 \u0085 \U0001f600"
    body = chat("say strange things")
    assert client.post(CHAT, json=body).json()["choices"][0]["message"]["content"] == strange
    assert streamed_text(chunks_of(client, body)) == strange


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": "nobody"}, "model"),
        ({"model": "ft:tunesmith/tiny:default::abcdefgh"}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 10**12}, "n"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"presence_penalty": -2.5}, "presence_penalty"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"functions": [{"name": "f g"}]}, "functions[0].name"),
        ({"verbosity": "loud"}, "verbosity"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"stream_options": {"include_everything": True}}, "stream_options.include_everything"),
        ({"top_k": -2}, "top_k"),
    ],
)
def test_wrong_field_is_named(
    client: httpx.Client, engine: ScriptedEngine, change: dict[str, Any], param: str
) -> None:
    answer = client.post(CHAT, json=chat() | change)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param
    assert engine.requests == []


def test_neutral_values_of_unserved_fields_are_taken(client: httpx.Client) -> None:
    neutral = {
        "logit_bias": {},
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "response_format": {"type": "text"},
        "tool_choice": "auto",
        "modalities": ["text"],
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "parallel_tool_calls": True,
    }
    assert client.post(CHAT, json=chat(**neutral)).status_code == 200


def test_the_engine_is_told_how_to_choose_and_for_whom(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    asked = {
        "logit_bias": {"5": 100, "7": -1.5},
        "frequency_penalty": 0.5,
        "presence_penalty": -0.25,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        },
    }
    assert client.post(CHAT, json=chat(**asked)).status_code == 200
    [request] = engine.requests
    sampling = request.sampling
    assert sampling.logit_bias == {5: 100, 7: -1.5}
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.5, -0.25)
    assert sampling.structured_output == SchemaOutput(json_schema=schema)
    assert request.project == "default"


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("choice", "form"),
    [
        ("auto", None),
        ("required", ToolCallOutput()),
        ({"type": "function", "function": {"name": "add"}}, ToolCallOutput(name="add")),
    ],
    ids=["auto", "required", "named"],
)
def test_a_call_can_be_asked_for(
    client: httpx.Client, engine: ScriptedEngine, choice: Any, form: ToolCallOutput | None
) -> None:
    assert client.post(CHAT, json=chat(tools=[TOOL], tool_choice=choice)).status_code == 200
    assert engine.requests[0].sampling.structured_output == form


def test_a_choice_of_a_tool_that_is_not_offered_is_refused(client: httpx.Client) -> None:
    choice = {"type": "function", "function": {"name": "subtract"}}
    answer = client.post(CHAT, json=chat(tools=[TOOL], tool_choice=choice))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tool_choice")


def test_calls_are_calls_and_no_text(client: httpx.Client) -> None:
    body = chat("call twice", tools=[TOOL])
    (choice,) = client.post(CHAT, json=body).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    assert message["content"] is None
    functions = [call["function"] for call in message["tool_calls"]]
    assert functions == [{"name": "add", "arguments": f'{{"a": {n}}}'} for n in (1, 2)]
    assert len({call["id"] for call in message["tool_calls"]}) == 2
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(client, body)]
    called = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert [call["index"] for call in called] == [0, 1]
    assert [call["function"] for call in called] == functions


@pytest.mark.parametrize("stream", [False, True])
def test_too_long_prompt_is_refused_with_a_status(client: httpx.Client, stream: bool) -> None:
    answer = client.post(CHAT, json=chat("word " * (CONTEXT_LENGTH + 1), stream=stream))
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize("stream", [False, True])
def test_full_engine_says_when_to_come_back(client: httpx.Client, stream: bool) -> None:
    answer = client.post(CHAT, json=chat("be full", stream=stream))
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"


def test_failure_in_the_middle_is_an_error(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=chat("fail"))
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "out_of_memory"
    last = client.post(CHAT, json=chat("fail", stream=True)).text.strip().split("\n\n")[-1]
    error = json.loads(last.removeprefix("data: "))
    check_schema("ErrorResponse", error)
    assert error["error"]["code"] == "out_of_memory"


def test_answer_that_stops_short_is_no_answer(client: httpx.Client) -> None:
    assert client.post(CHAT, json=chat("stop short")).status_code == 503
    text = client.post(CHAT, json=chat("stop short", stream=True)).text
    assert "[DONE]" not in text
    assert "engine_unavailable" in text


def test_broken_unicode_is_refused(client: httpx.Client) -> None:
    body = json.dumps(chat()).replace("What", "\\ud800").encode()
    answer = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize("content", ["never end", "think for ever"])
@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_stops_the_engine(
    client: httpx.Client, engine: ScriptedEngine, content: str, stream: bool
) -> None:
    leave_when(lambda: engine.requests, client, CHAT, chat(content, stream=stream))
    assert engine.was_left.wait(timeout=60)
