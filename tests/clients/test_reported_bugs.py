"""What frameworks have met at other OpenAI-compatible servers, and reported (docs/lab-notes.md)."""

import json
from typing import Any

import httpx
import pytest

from core.batching.turn_probe import turn_format
from core.engine.text.output_grammars import compile_call
from core.engine.text.structured_output import grammar_vocabulary
from core.spec.generation import ToolCallOutput
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER
from tests.templates import template_tokenizer

MODEL = "tunesmith/tiny"
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def ask(api: Api, content: str, **options: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
    return httpx.post(f"{api.url}/v1/chat/completions", json=body | options)


def chunks(api: Api, content: str, **options: Any) -> list[dict[str, Any]]:
    """The events of a stream, without the `[DONE]` that ends it."""
    lines = [line for line in ask(api, content, stream=True, **options).text.split("\n") if line]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def choices(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice for event in events for choice in event["choices"]]


def test_every_chunk_has_a_finish_reason_which_is_null_before_the_end(api: Api) -> None:
    """mudler/LocalAI#1744: clients read a missing `finish_reason` as the end."""
    *before, last = choices(chunks(api, "hello"))
    assert before and all(choice["finish_reason"] is None for choice in before)
    assert last["finish_reason"] == "stop"


def test_deltas_of_a_text_can_be_read_without_a_default(api: Api) -> None:
    """vllm-project/guidellm#315: `delta["content"]` of a chunk with text raised KeyError."""
    said = [choice["delta"] for choice in choices(chunks(api, "hello"))]
    assert "".join(delta["content"] for delta in said if "content" in delta) == ANSWER
    assert [delta for delta in said if delta.get("content", "") is None] == []


def test_chunks_of_tool_calls_have_indices_from_0(api: Api) -> None:
    """Lightning-AI/LitServe#349 (AI SDK) had none, BerriAI/litellm#32759 began at 1."""
    calls = [
        call
        for choice in choices(chunks(api, "call twice", tools=[ADD]))
        for call in choice["delta"].get("tool_calls", [])
    ]
    assert [call["index"] for call in calls if call.get("id")] == [0, 1]
    assert all(isinstance(call["index"], int) for call in calls)
    assert all(call["type"] == "function" for call in calls if call.get("id"))


def test_chunks_of_several_choices_name_theirs(api: Api) -> None:
    """BerriAI/litellm#5236: every chunk of `n=2` said that it belonged to choice 0."""
    texts = {0: "", 1: ""}
    for choice in choices(chunks(api, "hello", n=2)):
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == {0: ANSWER, 1: ANSWER}


def test_an_error_in_a_stream_is_an_event_of_its_own(api: Api) -> None:
    """vllm-project/guidellm#743: the error came with status 200 and looked like an answer."""
    *_, line = filter(None, ask(api, "fail", stream=True).text.split("\n"))
    last = json.loads(line.removeprefix("data: "))  # no [DONE] after it
    assert set(last) == {"error"}
    assert (last["error"]["code"], last["error"]["type"]) == ("out_of_memory", "server_error")


def test_an_echoed_prompt_has_its_log_probabilities(api: Api) -> None:
    """ggml-org/llama.cpp#27174: only new tokens had any, so lm-eval scored chance."""
    prompt = "one two three"
    body = {"model": MODEL, "prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 1}
    (choice,) = httpx.post(f"{api.url}/v1/completions", json=body).json()["choices"]
    table = choice["logprobs"]
    assert table["tokens"][:3] == ["one", " two", " three"] and len(table["tokens"]) == 4
    assert table["token_logprobs"][:3] == [None, -0.7, -0.7]
    assert len(table["text_offset"]) == len(table["top_logprobs"]) == 4


CALL = {"id": None, "type": "function", "function": {"name": "add", "arguments": "{}"}}


@pytest.mark.parametrize(
    "message",
    [
        # i-am-bee/beeai-framework#640: an error
        {"role": "assistant", "content": "Hello.", "tool_calls": None},
        # sigoden/aichat#1296: the server failed with 500
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ],
)
def test_null_in_an_answer_of_the_history_is_taken(api: Api, message: dict[str, Any]) -> None:
    user = {"role": "user", "content": "hello"}
    assert ask(api, "", messages=[user, message, user]).status_code == 200


def test_tools_may_refer_to_definitions() -> None:
    """abetlen/llama-cpp-python#1043: the nested classes of instructor were refused."""
    edge = {"type": "object", "properties": {"to": {"type": "integer"}}, "required": ["to"]}
    parameters = {
        "type": "object",
        "properties": {"edges": {"type": "array", "items": {"$ref": "#/$defs/Edge"}}},
        "required": ["edges"],
        "$defs": {"Edge": edge},
    }
    tool = {"type": "function", "function": {"name": "Graph", "parameters": parameters}}
    tokenizer = template_tokenizer("qwen2_5")
    vocabulary = grammar_vocabulary(tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    form = compile_call(ToolCallOutput(), turn_format(tokenizer), [tool], "closed", vocabulary)

    def accepts(arguments: str) -> bool:
        call = f'<tool_call>\n{{"name": "Graph", "arguments": {arguments}}}\n</tool_call>'
        held = form.start()
        for token in tokenizer.encode(call, add_special_tokens=False):
            if not held.allowed()[token]:
                return False
            held.take(token)
        return True

    assert accepts('{"edges": [{"to": 1}]}')
    assert not accepts('{"edges": [{"to": "one"}]}')
