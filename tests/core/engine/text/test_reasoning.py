"""What a caller is told of an answer with reasoning, token by token."""

import pytest

from core.batching.turn_probe import turn_format
from core.engine.policy.request import ModelKey, Request, SequenceState
from core.engine.results import SampledToken, TokenScores
from core.engine.text.answers import Detokenizer
from core.engine.text.token_bytes import TokenBytes
from core.spec.generation import ChoiceFinished, GenerationDelta, SamplingSpec
from tests.templates import template_tokenizer


def told(name: str, tokens: list[int], *, opened: bool, top: int | None = None) -> list:
    """The events after the first one, when a model writes these tokens and is cut off."""
    tokenizer = template_tokenizer(name)
    request = Request(
        *("r", ModelKey(None), (1,), SamplingSpec(seed=0, top_logprobs=top), len(tokens)),
        frozenset(),
        turn_format=turn_format(tokenizer),
        begins_in_reasoning=opened,
    )
    sequence, answer = SequenceState(request, 0), Detokenizer(request, TokenBytes(tokenizer))
    scores = None if top is None else TokenScores(-1.0, ())
    events = [
        event for token in tokens for event in answer.take(sequence, SampledToken(token, scores))
    ]
    return events[1:]


def parts(events: list) -> tuple[str, str]:
    deltas = [event for event in events if isinstance(event, GenerationDelta)]
    return "".join(each.reasoning for each in deltas), "".join(each.text for each in deltas)


def ids(name: str, text: str) -> list[int]:
    return template_tokenizer(name)(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("<think>\nOne,\ntwo.\n</think>\n\nThree.", False, ("One,\ntwo.", "Three.")),
        ("<think>One</think>Two", False, ("One", "Two")),
        ("One\n</think>\n\nTwo", True, ("One", "Two")),
        ("<think>\n\n</think>\n\nTwo", False, ("", "Two")),
        ("\n</think>\n\nTwo", True, ("", "Two")),
        ("  Two <think> is a word", False, ("", "  Two <think> is a word")),
        ("<think>\nOne, and", False, ("One, and", "")),
        ("One, and \n", True, ("One, and \n", "")),
        ("One </thi", True, ("One </thi", "")),
        ("<thi", False, ("", "<thi")),
        ("", False, ("", "")),
    ],
)
def test_reasoning_is_told_apart(text, opened, expected):
    events = told("qwen3", ids("qwen3", text), opened=opened) if text else []
    assert parts(events) == expected


def test_markers_that_span_tokens_are_found_as_well():
    tokenizer = template_tokenizer("qwen3")
    tokens = [token for letter in "<think>ab</think>c" for token in tokenizer.encode(letter)]
    assert parts(told("qwen3", tokens, opened=False)) == ("ab", "c")


def test_text_comes_at_once_and_reasoning_too():
    events = told("qwen3", ids("qwen3", "abc"), opened=True)
    assert [event.reasoning for event in events[:-1]] == [
        template_tokenizer("qwen3").decode([token]) for token in ids("qwen3", "abc")
    ]


def test_log_probabilities_stay_with_their_tokens():
    tokens = ids("qwen3", "<think>\nab\n</think>\n\ncd")
    events = told("qwen3", tokens, opened=False, top=0)
    recorded = [each.token for event in events[:-1] for each in event.logprobs]
    assert "".join(recorded) == "<think>\nab\n</think>\n\ncd"


def test_reasoning_tokens_are_counted():
    tokens = ids("qwen3", "a b c d e")
    [*_, finished] = told("qwen3", tokens, opened=True)
    assert isinstance(finished, ChoiceFinished)
    assert (finished.reasoning_tokens, finished.finish_reason) == (len(tokens), "length")
    [*_, finished] = told("qwen3", tokens, opened=False)
    assert finished.reasoning_tokens == 0


@pytest.mark.parametrize("marker", ["<|im_end|>", "<|channel|>analysis<|message|>", "<|end|>"])
def test_control_tokens_that_are_spelled_in_plain_tokens_are_text(marker):
    """A model may write about them, and what it writes marks nothing."""
    tokenizer = template_tokenizer("gptoss")
    plain = [token for letter in marker for token in tokenizer.encode(letter)]
    assert not set(plain) & set(tokenizer.all_special_ids)
    assert parts(told("gptoss", plain, opened=False)) == ("", marker)


def test_channels_are_sections_of_an_answer():
    text = (
        "<|channel|>analysis<|message|>One.<|end|><|start|>assistant"
        "<|channel|>final<|message|>Two, to=functions.look."
    )
    assert parts(told("gptoss", ids("gptoss", text), opened=False)) == (
        "One.",
        "Two, to=functions.look.",
    )
