"""A model that has learned a row writes its trained ids; the endpoint gives back the row's message.

For every real template and every kind of conversation, token by token, as the engine serves it.
"""

import json
from functools import cache
from typing import Any

import pytest

from core.batching.render import render_examples, render_prompt
from core.batching.rows import InvalidRow, Row
from core.batching.template import ChatTemplate
from core.batching.turn_format import TurnFormat
from core.batching.turn_probe import turn_format
from core.batching.turns import end_token_ids
from core.datasets.formats import ChatExample
from core.engine.policy.request import ModelKey, Request, SequenceState
from core.engine.results import SampledToken
from core.engine.text.answers import Detokenizer
from core.engine.text.token_bytes import TokenBytes
from core.spec.generation import ChoiceFinished, GenerationDelta, SamplingSpec, ToolCalled
from tests.conversations import KINDS, TOOL
from tests.templates import TEMPLATES, template_tokenizer

PARAMETERS = {"get_weather": TOOL["function"]["parameters"]}


@cache
def format_of(name: str) -> TurnFormat:
    return turn_format(template_tokenizer(name))


def served(name: str, prompt: list[int], answer: list[int], *, tools: bool) -> dict[str, Any]:
    """Return the message that the engine makes of the ids of an answer."""
    tokenizer, format_ = template_tokenizer(name), format_of(name)
    opened = format_.reasoning_after(tokenizer.decode(prompt[-80:])) == "open"
    ends = frozenset(end_token_ids(ChatTemplate(tokenizer)) | {tokenizer.eos_token_id})
    request = Request(
        *("r", ModelKey(None), tuple(prompt), SamplingSpec(seed=0), len(answer) + 1, ends),
        turn_format=format_,
        begins_in_reasoning=opened,
        tools=PARAMETERS if tools else None,
    )
    sequence, writer = SequenceState(request, 0), Detokenizer(request, TokenBytes(tokenizer))
    events = [e for token in answer for e in writer.take(sequence, SampledToken(token, None))]
    assert isinstance(events[-1], ChoiceFinished), "the engine did not stop at the end of the row"
    deltas = [event for event in events if isinstance(event, GenerationDelta)]
    calls = [event for event in events if isinstance(event, ToolCalled)]
    return {
        "content": "".join(delta.text for delta in deltas),
        "reasoning": "".join(delta.reasoning for delta in deltas),
        "calls": [(call.name, json.loads(call.arguments)) for call in calls],
    }


def wanted(message: dict[str, Any]) -> dict[str, Any]:
    functions = [call["function"] for call in message.get("tool_calls", ())]
    return {
        "content": message["content"],
        "reasoning": message.get("reasoning_content", ""),
        "calls": [(function["name"], function["arguments"]) for function in functions],
    }


def answers(rows: list[Row]) -> list[list[int]]:
    found: list[list[int]] = []
    for row in rows:
        for index, (token, trained) in enumerate(zip(row.tokens, row.trained, strict=True)):
            if trained and not row.trained[index - 1]:
                found.append([])
            if trained:
                found[-1].append(token)
    return found


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_trained_is_what_the_endpoint_answers(name: str) -> None:
    tokenizer = template_tokenizer(name)
    for kind, (messages, tools) in KINDS.items():
        example = ChatExample(tuple(messages), tuple(tools))
        try:
            rows = render_examples(tokenizer, [(1, example)])
        except InvalidRow:
            continue
        turns = [
            index
            for index, message in enumerate(messages)
            if message["role"] == "assistant" and message.get("weight", 1)
        ]
        for turn, answer in zip(turns, answers(rows), strict=True):
            prompt = render_prompt(tokenizer, messages[:turn], tools)
            message = served(name, prompt, answer, tools=bool(tools))
            expected = wanted(messages[turn])
            if name.startswith("gptoss") and kind == "call with words":
                # that template makes reasoning of the words beside a call
                expected |= {"content": "", "reasoning": expected["content"]}
            assert message == expected, kind
