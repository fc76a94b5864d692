"""Answers of real chat templates are read back as what was written, whole and token by token."""

import copy
import json
from functools import cache
from typing import Any

import pytest
from trl.chat_template_utils import add_response_schema, parse_response

from core.batching.probe import answer_with
from core.batching.template import ChatTemplate
from core.batching.tool_calls import ToolCall
from core.batching.turn_format import TurnFormat
from core.batching.turn_probe import special_tokens, turn_format
from core.batching.turn_reader import Part, TurnMarkers, TurnReader
from core.engine.policy.request import ModelKey, Request, SequenceState
from core.engine.results import SampledToken
from core.engine.text.answers import Detokenizer
from core.engine.text.token_bytes import TokenBytes
from core.spec.generation import GenerationDelta, SamplingSpec, ToolCalled
from tests.templates import TEMPLATES, template_tokenizer

NAMES = ("tunesmith_look", "tunesmith_stop")
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {}, "probe_city": {"type": "string"}},
}
TOOLS = dict.fromkeys(NAMES, PARAMETERS)

WITHOUT_CALLS = ("cohere", "cohere2", "gemma", "gemma3", "idefics3", "lfm2", "llama3", "llava_next")
WITHOUT_CALLS += ("phi3", "phi3_5", "qwen2_5_vl", "smolvlm")
"""Templates that render no tool calls. Each has a variant for training."""
CALLING = [name for name in TEMPLATES if name.removesuffix("_training") not in WITHOUT_CALLS]

CALLS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "no argument": [(NAMES[1], {})],
    "text": [(NAMES[0], {"city": "Zürich"})],
    "two arguments": [(NAMES[0], {"city": "Paris", "days": 3})],
    "quotes and lines": [(NAMES[0], {"city": 'say "no", \n(twice)'})],
    "looks like a number": [(NAMES[0], {"city": "42"})],
    "null": [(NAMES[0], {"days": None})],
    "boolean": [(NAMES[0], {"days": True})],
    "nested": [(NAMES[0], {"days": [1, "x", {"a": {"b": -0.5, "c": "d e"}}]})],
    "two calls": [(NAMES[0], {"city": "Bern", "days": False}), (NAMES[1], {})],
}


@cache
def format_of(name: str) -> TurnFormat:
    return turn_format(template_tokenizer(name))


def written(name: str, text: str, calls: Any = (), **parts: str) -> tuple[str, bool] | None:
    """What a model has to write, without its end, and whether the prompt opened a block."""
    tokenizer = template_tokenizer(name)
    turn = answer_with(ChatTemplate(tokenizer), text, calls, parts)
    if turn is None:
        return None
    answer = turn.answer.rstrip()
    ends = [token for token in special_tokens(tokenizer) if answer.endswith(token)]
    opened = format_of(name).reasoning_after(turn.prompt) == "open"
    return answer.removesuffix(max(ends, key=len, default="")), opened


def read(name: str, answer: str, *, opened: bool) -> Part:
    """Read an answer in one piece."""
    format_ = format_of(name)
    reader = TurnReader(format_, TurnMarkers(format_), TOOLS, begins_in_reasoning=opened)
    return _joined([reader.push(format_.control.coded(answer)), reader.finish()])


def served(name: str, answer: str, *, opened: bool) -> Part:
    """Read an answer token by token, as the engine serves it."""
    tokenizer = template_tokenizer(name)
    tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
    sampling, length = SamplingSpec(seed=0), len(tokens)
    request = Request(
        *("r", ModelKey(None), (1,), sampling, length, frozenset()),
        turn_format=format_of(name),
        begins_in_reasoning=opened,
        tools=TOOLS,
    )
    sequence, writer = SequenceState(request, 0), Detokenizer(request, TokenBytes(tokenizer))
    events = [
        event for token in tokens for event in writer.take(sequence, SampledToken(token, None))
    ]
    parts = [Part(e.text, e.reasoning) for e in events if isinstance(e, GenerationDelta)]
    calls = [ToolCall(e.name, e.arguments) for e in events if isinstance(e, ToolCalled)]
    return _joined([*parts, Part(calls=tuple(calls))])


def _joined(parts: list[Part]) -> Part:
    return Part(
        "".join(part.text for part in parts),
        "".join(part.reasoning for part in parts),
        tuple(call for part in parts for call in part.calls),
    )


def found(part: Part) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in part.calls]


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - set(CALLING)))
def test_templates_without_calls_leave_them_out(name: str) -> None:
    template = ChatTemplate(template_tokenizer(name))
    assert answer_with(template, "", CALLS["text"]) is None


@pytest.mark.parametrize("name", CALLING)
def test_calls_are_read_back(name: str) -> None:
    asked = 0
    for calls in CALLS.values():
        answer = written(name, "", calls)
        if answer is None:
            continue  # a template may have no place for two calls
        asked += 1
        for way in (read, served):
            part = way(name, answer[0], opened=answer[1])
            assert found(part) == calls
            assert (part.text.strip(), part.reasoning.strip()) == ("", "")
    assert asked >= len(CALLS) - 1


@pytest.mark.parametrize("name", CALLING)
def test_text_beside_calls_is_read_back(name: str) -> None:
    answer = written(name, "Let me look.", CALLS["two arguments"])
    if answer is None or "Let me look." not in answer[0]:
        return  # many templates have no place for a text beside calls
    for way in (read, served):
        part = way(name, answer[0], opened=answer[1])
        assert found(part) == CALLS["two arguments"]
        assert part.text + part.reasoning == "Let me look."
        assert part.text or name.startswith("gptoss"), "that template makes reasoning of it"


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_reasoning_are_read_back(name: str) -> None:
    for parts in ({}, {"reasoning_content": "First this,\nthen that."}):
        answer = written(name, "It is 5.\n\nOr 6.", **parts)
        if answer is None or "It is 5." not in answer[0]:
            continue
        shown = {} if "First this" not in answer[0] else parts
        for way in (read, served):
            part = way(name, answer[0], opened=answer[1])
            assert part == Part("It is 5.\n\nOr 6.", shown.get("reasoning_content", ""))


REFERENCED = ("qwen3", "qwen2_5", "qwen3_5_think", "llama3_1", "nemotron_3_nano", "glm4moe")


@pytest.mark.parametrize("name", REFERENCED)
def test_trl_reads_the_same_in_an_answer(name: str) -> None:
    """TRL has parsers of its own, written by hand for each of its templates."""
    tokenizer = add_response_schema(copy.deepcopy(template_tokenizer(name)))
    for calls, type_ in ((CALLS["two arguments"], "integer"), (CALLS["nested"], "array")):
        properties = {"city": {"type": "string"}, "days": {"type": type_}}
        parameters = {"type": "object", "properties": properties}
        tools = [
            {"type": "function", "function": {"name": each, "parameters": parameters}}
            for each in NAMES
        ]
        turn = answer_with(ChatTemplate(tokenizer), "", calls)
        assert turn is not None
        prompt, answer = (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (turn.prompt, turn.answer.rstrip())
        )
        theirs = parse_response(tokenizer, answer, prefix=prompt, tools=tools)["tool_calls"]
        ours = written(name, "", calls)
        assert ours is not None
        assert found(served(name, ours[0], opened=ours[1])) == [
            (each["function"]["name"], each["function"]["arguments"]) for each in theirs
        ]
