"""What comes out of the answers of endpoints that err or lie."""

import json
from typing import Any

import pytest

from core.evals.results import usage_of
from core.evals.samples import completion_of_response
from core.grading.sample import sample_of_completion
from worker.answering.external_answers import MOST_TOKENS, BadAnswer, read_answer

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"


def read(url: str, **answer: Any) -> dict[str, Any]:
    return read_answer(url, json.dumps(answer).encode())


def choice(**message: Any) -> list[dict[str, Any]]:
    return [{"index": 0, "finish_reason": "stop", "message": message}]


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "none",
        [],
        {"prompt_tokens": "many", "completion_tokens": -5, "total_tokens": 10**30},
        {"prompt_tokens": True, "prompt_tokens_details": [1]},
        {"prompt_tokens_details": {"cached_tokens": None}},
    ],
)
def test_usage_that_is_none_counts_nothing(usage: Any) -> None:
    answer = read(CHAT, choices=choice(content="4"), usage=usage)
    counted = {name: value for name, value in usage_of(answer).items() if isinstance(value, int)}
    assert counted.pop("invocation_count") == 1
    assert set(counted.values()) == {0}


def test_usage_is_taken_as_it_is() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": MOST_TOKENS, "total_tokens": 9}
    counted = usage_of(read(CHAT, model="m", choices=choice(content="4"), usage=usage))
    assert (counted["model_name"], counted["prompt_tokens"], counted["total_tokens"]) == ("m", 3, 9)
    assert counted["completion_tokens"] == MOST_TOKENS


@pytest.mark.parametrize(
    "choices",
    [
        None,
        [],
        {},
        ["4"],
        [{"message": "4"}],
        [{"message": {"content": 4}}],
        [{"message": {"content": {"text": "4"}}}],
        [{"message": {"content": "4", "refusal": {}}}],
        [{"message": {"content": None, "tool_calls": "f()"}}],
        [{"message": {"content": None, "tool_calls": [{"function": {"name": "f"}}]}}],
        [{"message": {"content": "4", "tool_calls": [{"function": "f"}]}}],
    ],
)
def test_completion_of_another_shape_is_refused(choices: Any) -> None:
    with pytest.raises(BadAnswer, match="no answer of /v1/chat/completions: choices"):
        read(CHAT, choices=choices)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_lacks_are_refused(number: str) -> None:
    """The database does not store them: one such answer would end a whole run."""
    content = f'{{"choices": [{{"message": {{"content": "4"}}, "x": {number}}}]}}'
    with pytest.raises(BadAnswer, match="without JSON"):
        read_answer(CHAT, content.encode())


def test_only_what_is_known_is_kept() -> None:
    secret = {"x": "y" * 1000}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    answer = read(
        CHAT,
        id=secret,
        model=["m"],
        choices=[
            {
                "finish_reason": 7,
                "logprobs": secret,
                "message": {"content": "4", "tool_calls": [call | secret]},
            }
        ],
    )
    assert "yyy" not in json.dumps(answer)
    sample = sample_of_completion(answer)
    assert (sample.output_text, answer["choices"][0]["finish_reason"]) == ("4", "stop")
    assert sample.output_tools[0]["function"] == {"name": "f", "arguments": '{"a": 1}'}


def test_response_becomes_a_completion() -> None:
    output = [
        {"type": "reasoning", "content": None, "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": "4"}, {"type": "image"}]},
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
        {"type": "function_call"},
    ]
    answer = read(RESPONSES, model="m", output=output, usage={"input_tokens": 2})
    completion = completion_of_response(answer)
    sample = sample_of_completion(completion)
    assert sample.output_text == "4"
    assert [call["function"]["name"] for call in sample.output_tools] == ["f", ""]
    assert usage_of(completion)["prompt_tokens"] == 2


@pytest.mark.parametrize("output", [None, "4", [1], [{"type": "message", "content": "4"}], [{}]])
def test_response_of_another_shape_is_refused(output: Any) -> None:
    with pytest.raises(BadAnswer, match="no answer of /v1/responses: output"):
        read(RESPONSES, model="m", output=output)
