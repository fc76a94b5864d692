"""What a caller is told of a tool call, token by token."""

import pytest

from core.engine.policy.request import ModelKey, Request, SequenceState
from core.engine.results import SampledToken
from core.engine.text.answers import Detokenizer
from core.spec.generation import ChoiceFinished, GenerationDelta, SamplingSpec, ToolCalled

CALL = '<call>{"name": "look", "arguments": {"at": "größer"}}</call>'


def told(vocabulary, text: str, *, offered: bool = True, ends: bool = True) -> list:
    """The events after the first one, when a model writes `text` and perhaps ends."""
    tokens = vocabulary.tokenizer(text)["input_ids"]
    end = min(vocabulary.end_token_ids)
    request = Request(
        "r",
        ModelKey(None),
        (1,),
        SamplingSpec(seed=0),
        len(tokens) + ends,
        vocabulary.end_token_ids,
        turn_format=vocabulary.turn_format if offered else None,
        tools={"look": None} if offered else None,
    )
    sequence, answer = SequenceState(request, 0), Detokenizer(request, vocabulary.token_bytes)
    events = [
        event
        for token in [*tokens, *([end] if ends else [])]
        for event in answer.take(sequence, SampledToken(token, None))
    ]
    assert sequence.is_finished
    return events[1:]


def text_of(events: list) -> str:
    return "".join(event.text for event in events if isinstance(event, GenerationDelta))


def test_a_call_is_told_as_a_call_after_the_text_before_it(calling):
    *told_before, call, finished = told(calling, f"Let me look. {CALL}")
    assert text_of(told_before) == "Let me look. "
    assert call == ToolCalled(choice=0, name="look", arguments='{"at": "größer"}')
    assert isinstance(finished, ChoiceFinished)
    assert finished.finish_reason == "tool_calls"


def test_without_tools_a_call_is_text(calling):
    events = told(calling, CALL, offered=False)
    assert text_of(events) == CALL
    assert events[-1].finish_reason == "stop"


@pytest.mark.parametrize("text", [CALL[:-20], "a < b <cal", ""])
def test_what_is_no_whole_call_is_text(calling, text):
    events = told(calling, text)
    assert text_of(events) == text
    assert not any(isinstance(event, ToolCalled) for event in events)
    assert events[-1].finish_reason == "stop"


def test_a_call_that_max_tokens_cuts_off_is_text_and_says_so(calling):
    events = told(calling, CALL[:-20], ends=False)
    assert text_of(events) == CALL[:-20]
    assert events[-1].finish_reason == "length"
