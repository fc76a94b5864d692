"""The log-probabilities of text completions."""

from typing import Any

from core.inference.answer import Answer, Choice, Usage
from core.inference.completion import text_completion
from core.inference.plan import Plan
from core.spec.base_model import BaseModelSpec
from core.spec.generation import (
    GeneratedToken,
    GenerationRequest,
    SamplingSpec,
    TextPrompt,
    TokenLogprob,
)

PLAN = Plan(
    id="cmpl-1",
    created=1,
    model="tiny",
    requests=[
        GenerationRequest(
            id="cmpl-1-0",
            base=BaseModelSpec(id="tiny", source="/nowhere"),
            prompt=TextPrompt(text="a"),
            sampling=SamplingSpec(seed=1, top_logprobs=5),
        )
    ],
    include_usage=False,
)


def scored(own: bytes, logprob: float) -> TokenLogprob:
    return TokenLogprob(token=own.decode(errors="replace"), bytes=tuple(own), logprob=logprob)


def generated(own: bytes, logprob: float, *top: TokenLogprob) -> GeneratedToken:
    return GeneratedToken(**vars(scored(own, logprob)), top=top)


def logprobs_of(*tokens: GeneratedToken) -> dict[str, Any]:
    answer = Answer([Choice("text", logprobs=list(tokens))], Usage(1, len(tokens)), [()])
    logprobs: dict[str, Any] = text_completion(PLAN, answer, echo=False)["choices"][0]["logprobs"]
    return logprobs


def test_parts_of_characters_are_named_by_their_bytes() -> None:
    """sglang#32290, vllm#44319: alternatives with the same replacement character were lost."""
    euro = "€".encode()
    first, second = euro[:2], euro[2:]
    top = (scored(first, -0.1), scored(b"\xe2\x81", -0.2), scored("\ufffd".encode(), -0.3))
    logprobs = logprobs_of(generated(first, -0.1, *top), generated(second, -0.5))
    assert logprobs["tokens"] == [r"bytes:\xe2\x82", r"bytes:\xac"]
    assert logprobs["top_logprobs"] == [
        {r"bytes:\xe2\x82": -0.1, r"bytes:\xe2\x81": -0.2, "\ufffd": -0.3},
        {r"bytes:\xac": -0.5},
    ]
    assert logprobs["text_offset"] == [0, 0]


def test_the_chosen_token_is_always_among_its_alternatives() -> None:
    """vllm#53722: it could be missing. Its name is that in `tokens`, as lm-eval expects."""
    logprobs = logprobs_of(generated(b"x", -7.0, scored(b"y", -0.1)))
    assert logprobs["top_logprobs"] == [{"x": -7.0, "y": -0.1}]


def test_of_tokens_with_the_same_bytes_the_most_likely_is_kept() -> None:
    top = (scored(b"a", 0.0), scored(b"a", -3.0), scored(b"", -4.0))
    assert logprobs_of(generated(b"a", -3.0, *top))["top_logprobs"] == [{"a": 0.0, "": -4.0}]
