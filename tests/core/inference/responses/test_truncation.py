"""`truncation`: what is left out of a conversation that is too long."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from core.errors import InvalidRequest
from core.inference.answer import Events
from core.inference.responses.truncation import begun_response, shortened
from core.spec.generation import ChatPrompt, GenerationRequest
from core.spec.response import ResponsePlan
from tests.core.inference.responses.planned import answer, arriving, plan_of

CALL = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "3"}


def turns(count: int) -> list[dict[str, Any]]:
    return [
        item
        for number in range(count)
        for item in (
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": f"answer {number}"},
        )
    ]


def contents(plan: ResponsePlan) -> list[str]:
    return [message["content"] for message in plan.prompt.messages]


class Engine:
    """Has room for so many messages."""

    def __init__(self, room: int, param: str = "messages") -> None:
        self.room = room
        self.param = param
        self.asked: list[int] = []

    async def __call__(self, requests: Sequence[GenerationRequest]) -> Events:
        prompt = requests[0].prompt
        assert isinstance(prompt, ChatPrompt)
        self.asked.append(len(prompt.messages))
        if len(prompt.messages) > self.room:
            raise InvalidRequest("Too long.", param=self.param, code="context_length_exceeded")
        async for item in arriving(answer("ok")):
            yield item


def ask(plan: ResponsePlan, room: int, param: str = "messages") -> list[int]:
    engine = Engine(room, param)

    async def read() -> None:
        events = await begun_response(plan, engine)
        assert len([item async for item in events]) == 3

    asyncio.run(read())
    return engine.asked


def test_oldest_turns_are_left_out_until_it_fits() -> None:
    items = [*turns(10), {"role": "user", "content": "last"}]
    plan = plan_of(input=items, instructions="Add.", truncation="auto")
    assert ask(plan, room=22) == [22]
    assert ask(plan, room=9) == [22, 20, 18, 16, 14, 12, 10, 8]
    shorter = shortened(plan)
    assert shorter is not None
    assert contents(shorter)[:2] == ["Add.", "question 1"], "the instructions stay"


def test_a_call_is_not_separated_from_its_output() -> None:
    items = [{"role": "user", "content": "?"}, CALL, OUTPUT, {"role": "user", "content": "last"}]
    shorter = shortened(plan_of(input=items, truncation="auto"))
    assert shorter is not None and contents(shorter) == ["last"]


def test_last_message_of_the_user_stays() -> None:
    items = [*turns(1), {"role": "user", "content": "last"}, CALL, OUTPUT]
    shorter = shortened(plan_of(input=items, truncation="auto"))
    assert shorter is not None and contents(shorter) == ["last", "", "3"]
    assert shortened(shorter) is None


@pytest.mark.parametrize("truncation", [None, "disabled"])
def test_without_truncation_it_is_an_error_of_the_input(truncation: str | None) -> None:
    plan = plan_of(input=[*turns(9), {"role": "user", "content": "x"}], truncation=truncation)
    with pytest.raises(InvalidRequest) as refusal:
        ask(plan, room=9)
    assert (refusal.value.param, refusal.value.code) == ("input", "context_length_exceeded")


@pytest.mark.parametrize(
    ("param", "shown"),
    [
        ("messages[3].content", "input"),
        ("response_format", "text.format"),
        ("max_tokens", "max_output_tokens"),
        ("tools[0]", "tools[0]"),
        ("model", "model"),
    ],
)
def test_refusals_of_engines_name_the_fields_of_responses(param: str, shown: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        ask(plan_of(), room=0, param=param)
    assert refusal.value.param == shown
