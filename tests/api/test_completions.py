"""Text completions, on an engine that follows a script."""

import json
from typing import Any

import httpx
import pytest

from core.spec.generation import TextPrompt, TokenPrompt
from tests.api.scripted_engine import ANSWER, CONTEXT_LENGTH, ScriptedEngine
from tests.contract.contract import check_schema

COMPLETIONS = "/v1/completions"


def completion(prompt: Any = "The question is", **options: Any) -> dict[str, Any]:
    return {"model": "tunesmith/tiny", "prompt": prompt} | options


def chunks_of(client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.post(COMPLETIONS, json=body | {"stream": True})
    *events, last = answer.text.strip().split("\n\n")
    assert last == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    for chunk in chunks:
        check_schema("CreateCompletionResponse", chunk)
    return chunks


def streamed_texts(chunks: list[dict[str, Any]]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


def test_answer_has_text_reason_and_usage(client: httpx.Client) -> None:
    answer = client.post(COMPLETIONS, json=completion()).json()
    (choice,) = answer["choices"]
    assert choice == {"index": 0, "text": ANSWER, "logprobs": None, "finish_reason": "stop"}
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_sixteen_tokens_unless_told_otherwise(client: httpx.Client, engine: ScriptedEngine) -> None:
    client.post(COMPLETIONS, json=completion())
    assert engine.requests[0].sampling.max_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", [TextPrompt(text="a")]),
        (["a", "b"], [TextPrompt(text="a"), TextPrompt(text="b")]),
        ([1, 2], [TokenPrompt(tokens=(1, 2))]),
        ([[1, 2], [3]], [TokenPrompt(tokens=(1, 2)), TokenPrompt(tokens=(3,))]),
    ],
)
def test_prompt_is_taken_in_four_forms(
    client: httpx.Client, engine: ScriptedEngine, prompt: Any, expected: list[Any]
) -> None:
    answer = client.post(COMPLETIONS, json=completion(prompt)).json()
    assert len(answer["choices"]) == len(expected)
    by_id = sorted(engine.requests, key=lambda request: request.id)
    assert [request.prompt for request in by_id] == expected


def test_choices_of_several_prompts_keep_their_order(client: httpx.Client) -> None:
    body = completion(["one", "two words"], n=2, echo=True)
    answer = client.post(COMPLETIONS, json=body).json()
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts == [f"one{ANSWER}"] * 2 + [f"two words{ANSWER}"] * 2
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 16, "total_tokens": 19}
    assert streamed_texts(chunks_of(client, body)) == dict(enumerate(texts))


def test_stream_ends_with_the_usage_when_asked(client: httpx.Client) -> None:
    chunks = chunks_of(client, completion(stream_options={"include_usage": True}))
    assert streamed_texts(chunks) == {0: ANSWER}
    assert chunks[-1]["usage"]["total_tokens"] == 7
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


def test_logprobs_are_parallel_lists(client: httpx.Client) -> None:
    body = completion(logprobs=2)
    (choice,) = client.post(COMPLETIONS, json=body).json()["choices"]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == ANSWER
    assert logprobs["text_offset"] == [0, 3, 10, 13]
    assert logprobs["token_logprobs"] == [-0.5] * 4
    assert logprobs["top_logprobs"][0] == {"The": -0.5, "other0": -1.0}
    streamed = [chunk["choices"][0]["logprobs"] for chunk in chunks_of(client, body)]
    offsets = [offset for each in streamed if each for offset in each["text_offset"]]
    assert offsets == logprobs["text_offset"]


@pytest.mark.parametrize(
    ("prompt", "text", "tokens"),
    [("one two", "one two", ["one", " two"]), ([1, 2], "1 2", ["1", " 2"])],
    ids=["text", "tokens"],
)
def test_a_prompt_can_be_scored_without_an_answer(
    client: httpx.Client, prompt: Any, text: str, tokens: list[str]
) -> None:
    body = completion(prompt, echo=True, logprobs=1, max_tokens=0)
    answer = client.post(COMPLETIONS, json=body).json()
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text, "length")
    assert choice["logprobs"]["tokens"] == tokens
    assert choice["logprobs"]["token_logprobs"] == [None, -0.7]
    assert choice["logprobs"]["top_logprobs"] == [None, {tokens[1]: -0.7}]
    assert choice["logprobs"]["text_offset"] == [0, len(tokens[0])]
    assert answer["usage"]["completion_tokens"] == 0
    first, *_ = chunks_of(client, body)
    assert first["choices"][0]["logprobs"] == choice["logprobs"]


def test_an_echoed_prompt_and_its_answer_are_one_table(client: httpx.Client) -> None:
    body = completion("one two", echo=True, logprobs=1)
    (choice,) = client.post(COMPLETIONS, json=body).json()["choices"]
    logprobs = choice["logprobs"]
    assert choice["text"] == "".join(logprobs["tokens"]) == f"one two{ANSWER}"
    assert logprobs["token_logprobs"] == [None, -0.7, *[-0.5] * 4]
    assert logprobs["text_offset"] == [0, 3, 7, 10, 17, 20]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a"] * 200, "n": 2}, "prompt"),
        ({"logprobs": 6}, "logprobs"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"logit_bias": {"word": 1}}, "logit_bias.word"),
        ({"echo": True, "prompt": [1, 2]}, "echo"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1, "echo": True}, "max_tokens"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"messages": []}, "messages"),
        ({"model": "nobody"}, "model"),
    ],
)
def test_wrong_field_is_named(
    client: httpx.Client, engine: ScriptedEngine, change: dict[str, Any], param: str
) -> None:
    answer = client.post(COMPLETIONS, json=completion() | change)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"].partition("[")[0] == param
    assert engine.requests == []


def test_one_bad_prompt_of_several_fails_all(client: httpx.Client) -> None:
    answer = client.post(
        COMPLETIONS, json=completion(["fine", "word " * (CONTEXT_LENGTH + 1), "never end"])
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["param"] == "prompt"
