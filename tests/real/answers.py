"""Answers of the endpoint beside those of plain transformers, token by token.

They are equal when every token is, up to where the other side's two likeliest tokens are as good
as equally likely: sums in another order may exchange those.
"""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from openai import OpenAI
from transformers import PreTrainedTokenizerFast

NEAR_TIE_NATS = 1e-3
LOGPROB_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Token:
    """A written token; `lead` is how much likelier than the next best it was, where known."""

    text: str
    logprob: float
    lead: float | None = None


@torch.inference_mode()
def written_by_transformers(
    model: Any, tokenizer: PreTrainedTokenizerFast, prompt: list[int], new_tokens: int
) -> list[Token]:
    """Return the likeliest continuation, without the token that ends it."""
    output = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = []
    written = output.sequences[0, -len(output.logits) :].tolist()
    for token, logits in zip(written, output.logits, strict=True):
        if token == tokenizer.eos_token_id:
            break
        best, second = logits[0].float().topk(2).values.tolist()
        logprob = logits[0].float().log_softmax(-1)[token].item()
        tokens.append(Token(tokenizer.decode([token]), logprob, best - second))
    return tokens


def written_by_the_endpoint(
    client: OpenAI, model: str, prompt: list[int] | list[dict[str, str]], new_tokens: int
) -> list[Token]:
    """Ask for the likeliest answer to messages, or continuation of tokens."""
    options: dict[str, Any] = {"model": model, "max_tokens": new_tokens, "temperature": 0}
    if isinstance(prompt[0], int):
        choice = client.completions.create(prompt=prompt, logprobs=1, **options).choices[0]
        assert choice.logprobs and choice.logprobs.tokens is not None
        pairs = zip(choice.logprobs.tokens, choice.logprobs.token_logprobs or (), strict=True)
        return [Token(text, logprob) for text, logprob in pairs]
    chat = client.chat.completions.create(messages=prompt, logprobs=True, **options).choices[0]
    assert chat.logprobs is not None
    return [Token(each.token, each.logprob) for each in chat.logprobs.content or ()]


def require_equal(endpoint: list[Token], reference: list[Token]) -> None:
    """Fail with both texts at the first token that differs by more than a near-tie."""
    texts = ["".join(token.text for token in side) for side in (endpoint, reference)]
    for position, (ours, theirs) in enumerate(zip(endpoint, reference, strict=False)):
        if ours.text != theirs.text:
            assert theirs.lead is not None and theirs.lead < NEAR_TIE_NATS, (
                f"token {position} is {ours.text!r}, not {theirs.text!r}, which leads by "
                f"{theirs.lead:.3g} nat\nendpoint:  {texts[0]!r}\nreference: {texts[1]!r}"
            )
            return
        assert ours.logprob == pytest.approx(theirs.logprob, abs=LOGPROB_TOLERANCE), (
            f"token {position} {ours.text!r} of {texts[0]!r}"
        )
    assert len(endpoint) == len(reference), texts
