"""Plans of responses, and what an engine answers to them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from core.inference.responses.events import respond, response_events
from core.inference.responses.items import given_items
from core.inference.responses.plan import plan_response
from core.inference.responses.schemas import ResponseBody
from core.inference.targets import Target
from core.spec.base_model import BaseModelSpec
from core.spec.generation import (
    AnswerEvent,
    ChoiceFinished,
    FinishReason,
    GenerationDelta,
    GenerationStarted,
    ToolCalled,
)
from core.spec.response import ResponsePlan
from tests.contract.contract import check_schema

TARGET = Target("tunesmith/tiny", BaseModelSpec(id="tunesmith/tiny", source="/models/tiny"), None)

TOOL = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    "strict": True,
}


def body_of(**fields: Any) -> ResponseBody:
    return ResponseBody.model_validate({"model": "tunesmith/tiny", "input": "hello"} | fields)


def plan_of(**fields: Any) -> ResponsePlan:
    body = body_of(**fields)
    return plan_response(TARGET, "default", body, given_items(body.input, {}))


def answer(
    *parts: str | GenerationDelta | ToolCalled,
    finish_reason: FinishReason = "stop",
    reasoning_tokens: int = 0,
) -> list[AnswerEvent]:
    """The events of an engine: each text is a token."""
    deltas = [
        GenerationDelta(choice=0, text=part) if isinstance(part, str) else part for part in parts
    ]
    return [
        GenerationStarted(prompt_tokens=3),
        *deltas,
        ChoiceFinished(
            choice=0,
            finish_reason=finish_reason,
            completion_tokens=len(parts),
            reasoning_tokens=reasoning_tokens,
        ),
    ]


def thought(text: str, said: str = "") -> GenerationDelta:
    return GenerationDelta(choice=0, text=said, reasoning=text)


def call(arguments: str = '{"a": 1}') -> ToolCalled:
    return ToolCalled(choice=0, name="add", arguments=arguments)


async def arriving(
    events: Sequence[AnswerEvent], error: Exception | None = None
) -> AsyncGenerator[tuple[int, AnswerEvent], None]:
    for event in events:
        yield 0, event
    if error is not None:
        raise error


def streamed(
    plan: ResponsePlan, events: Sequence[AnswerEvent], error: Exception | None = None
) -> list[dict[str, Any]]:
    """The events of a response, each held against the contract and numbered without gaps."""

    async def collect() -> list[dict[str, Any]]:
        return [event async for event in response_events(plan, arriving(events, error))]

    found = asyncio.run(collect())
    for number, event in enumerate(found):
        check_schema("ResponseStreamEvent", event)
        assert event["sequence_number"] == number
    return found


def response_of(plan: ResponsePlan, events: Sequence[AnswerEvent]) -> dict[str, Any]:
    """The whole response, held against the contract."""
    response = asyncio.run(respond(plan, arriving(events)))
    check_schema("Response", response)
    return response


def types(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]
