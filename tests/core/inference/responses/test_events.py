"""The events of a response: complete, in OpenAI's order, and equal to the whole response."""

from collections.abc import Sequence
from typing import Any

import pytest

from core.errors import InvalidRequest, TunesmithError, Unavailable
from core.inference.responses.plan import LOGPROBS
from core.spec.generation import AnswerEvent, GeneratedToken, GenerationDelta, TokenLogprob
from tests.contract.contract import check_schema
from tests.core.inference.responses.planned import (
    TOOL,
    answer,
    call,
    plan_of,
    response_of,
    streamed,
    thought,
    types,
)

MESSAGE_EVENTS = ["output_text.done", "content_part.done", "output_item.done"]
CALL_EVENTS = [
    "output_item.added",
    "function_call_arguments.delta",
    "function_call_arguments.done",
    "output_item.done",
]


def token(text: str) -> GeneratedToken:
    other = TokenLogprob(token="x", bytes=(120,), logprob=-99_999.0)
    return GeneratedToken(token=text, bytes=tuple(text.encode()), logprob=-0.5, top=(other,))


def test_text_comes_in_the_order_of_openai() -> None:
    events = streamed(plan_of(), answer("The", " end"))
    assert types(events) == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.delta"),
        *MESSAGE_EVENTS,
        "completed",
    ]
    assert [event["delta"] for event in events if "delta" in event] == ["The", " end"]
    (item,) = events[-1]["response"]["output"]
    assert item["content"] == [
        {"type": "output_text", "text": "The end", "annotations": [], "logprobs": []}
    ]
    assert len({event["item_id"] for event in events if "item_id" in event} | {item["id"]}) == 1


ANSWERS: dict[str, tuple[dict[str, Any], Sequence[AnswerEvent]]] = {
    "text": ({}, answer("The", " end")),
    "nothing": ({}, answer()),
    "blank": ({}, answer("\n", " ")),
    "cut": ({"max_output_tokens": 1}, answer("The", finish_reason="length")),
    "reasoning": ({}, answer(thought("Hm"), thought(". ", "42"), "!", reasoning_tokens=2)),
    "summary": ({"reasoning": {"summary": "auto"}}, answer(thought("Hm"), "42")),
    "cut reasoning": ({}, answer(thought("Hm"), finish_reason="length")),
    "blank cut": ({}, answer(thought("Hm"), "\n", finish_reason="length")),
    "call": ({"tools": [TOOL]}, answer(call(), finish_reason="tool_calls")),
    "text and calls": ({"tools": [TOOL]}, answer("I add.", call(), call('{"a": 2}'))),
    "reasoning and call": ({"tools": [TOOL]}, answer(thought("Hm"), "\n\n", call())),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_stream_and_whole_response_are_the_same(name: str) -> None:
    fields, events = ANSWERS[name]
    plan = plan_of(**fields)
    found = streamed(plan, events)
    assert found[-1]["response"] | {"completed_at": 0} == response_of(plan, events) | {
        "completed_at": 0
    }
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert found[-1]["response"]["output"] == done
    added = [event for event in found if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == list(range(len(done)))
    assert [event["item"]["id"] for event in added] == [item["id"] for item in done]


def test_calls_are_items_of_their_own_after_the_text() -> None:
    events = streamed(plan_of(tools=[TOOL]), answer("I add.", call(), call('{"a": 2}')))
    assert types(events)[5:] == [*MESSAGE_EVENTS, *CALL_EVENTS, *CALL_EVENTS, "completed"]
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    assert [item["arguments"] for item in output[1:]] == ['{"a": 1}', '{"a": 2}']
    assert len({item["call_id"] for item in output[1:]}) == 2
    assert events[-1]["response"]["status"] == "completed"


def test_one_call_at_most_without_parallel_calls() -> None:
    plan = plan_of(tools=[TOOL], parallel_tool_calls=False)
    response = response_of(plan, answer(call(), call('{"a": 2}')))
    assert [item["arguments"] for item in response["output"]] == ['{"a": 1}']


def test_white_space_before_a_call_is_no_message() -> None:
    response = response_of(plan_of(tools=[TOOL]), answer("\n", "\n", call()))
    assert [item["type"] for item in response["output"]] == ["function_call"]
    response = response_of(plan_of(), answer("\n", "\n", "42"))
    assert response["output"][0]["content"][0]["text"] == "\n\n42"


def test_reasoning_is_an_item_before_the_message() -> None:
    events = answer(thought("Six times "), thought("seven.", "4"), "2", reasoning_tokens=5)
    found = streamed(plan_of(), events)
    assert types(found) == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("reasoning_text.delta", "reasoning_text.delta", "reasoning_text.done"),
        *("content_part.done", "output_item.done", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.delta", *MESSAGE_EVENTS, "completed"),
    ]
    reasoning, message = found[-1]["response"]["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Six times seven."}]
    assert (reasoning["summary"], message["content"][0]["text"]) == ([], "42")
    usage = found[-1]["response"]["usage"]
    assert usage["output_tokens_details"] == {"reasoning_tokens": 5}


def test_a_summary_is_the_reasoning_where_it_is_asked_for() -> None:
    found = streamed(plan_of(reasoning={"summary": "detailed"}), answer(thought("Hm"), "42"))
    assert types(found)[2:8] == [
        *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
    ]
    reasoning = found[-1]["response"]["output"][0]
    assert (reasoning["summary"][0]["text"], reasoning["content"]) == ("Hm", [])


def test_reasoning_that_is_cut_off_has_no_message() -> None:
    response = response_of(plan_of(), answer(thought("Hm"), finish_reason="length"))
    assert [item["type"] for item in response["output"]] == ["reasoning"]
    assert response["output"][0]["status"] == response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}


def test_an_empty_answer_is_an_empty_message() -> None:
    response = response_of(plan_of(), answer())
    assert response["output"][0]["content"][0]["text"] == ""
    assert response["status"] == "completed"


def test_logprobs_are_in_deltas_and_in_the_part_if_included() -> None:
    deltas = [GenerationDelta(choice=0, text=text, logprobs=(token(text),)) for text in ("a", "b")]
    thinking = GenerationDelta(choice=0, text="", reasoning="Hm", logprobs=(token("Hm"),))
    end = GenerationDelta(choice=0, text="", logprobs=(token("<end>"),))
    plan = plan_of(include=[LOGPROBS], top_logprobs=1)
    assert plan.request.sampling.top_logprobs == 1
    found = streamed(plan, answer(thinking, *deltas, end))
    sent = [
        each["token"]
        for event in found
        if event["type"] == "response.output_text.delta"
        for each in event["logprobs"]
    ]
    part = found[-1]["response"]["output"][1]["content"][0]
    assert sent == [each["token"] for each in part["logprobs"]] == ["a", "b", "<end>"]
    assert part["logprobs"][0]["top_logprobs"][0]["logprob"] == -9999.0
    assert plan_of(top_logprobs=5).request.sampling.top_logprobs is None, "not included"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TunesmithError("The device is out of memory."), "server_error"),
        (Unavailable("Gone.", code="engine_unavailable"), "server_error"),
        (Unavailable("Full.", code="rate_limit_exceeded"), "rate_limit_exceeded"),
        (InvalidRequest("No."), "invalid_prompt"),
    ],
)
def test_failure_is_the_last_event(error: TunesmithError, code: str) -> None:
    found = streamed(plan_of(), answer("The")[:-1], error)
    assert types(found)[-2:] == ["output_item.done", "failed"]
    response = found[-1]["response"]
    assert (response["status"], response["error"]) == (
        "failed",
        {"code": code, "message": error.message},
    )
    assert response["output"][0]["status"] == "incomplete"


def test_no_event_before_the_last_has_a_usage() -> None:
    """Clients that add the usage of every event crash at a null."""
    found = streamed(plan_of(), answer("The"))
    assert [("usage" in event["response"]) for event in found if "response" in event] == [
        *(False, False, True)
    ]


def test_contract_bites() -> None:
    with pytest.raises(AssertionError):
        check_schema("ResponseStreamEvent", {"type": "response.output_text.delta", "delta": "x"})
    with pytest.raises(AssertionError):
        check_schema("Response", {"id": "resp_1", "object": "response"})
