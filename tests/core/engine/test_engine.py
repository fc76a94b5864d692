"""What the engine answers, held against transformers and PEFT one request at a time."""

import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from core.engine.engine import Engine
from core.errors import TunesmithError, Unavailable
from core.spec.generation import (
    ChatPrompt,
    ChoiceFinished,
    GeneratedToken,
    GenerationDelta,
    GenerationRequest,
    GenerationStarted,
    SamplingSpec,
    TextPrompt,
    TokenPrompt,
)

NEAR_TIE_NATS = 1e-3
"""fp32 rounding may turn a choice between tokens that are closer than this (decisions.md 16)."""

PROMPTS = [
    (40, 41, 42),
    tuple(range(30, 60)),
    (300,),
    tuple(range(200, 211)),
]


@dataclass
class Answer:
    """All items of one request, sorted out."""

    items: list = field(default_factory=list)

    def choice(self, choice: int = 0) -> str:
        return "".join(
            each.text
            for each in self.items
            if isinstance(each, GenerationDelta) and each.choice == choice
        )

    def tokens(self, choice: int = 0) -> list[GeneratedToken]:
        return [
            token
            for each in self.items
            if isinstance(each, GenerationDelta) and each.choice == choice
            for token in each.logprobs
        ]

    def finished(self) -> dict[int, ChoiceFinished]:
        return {each.choice: each for each in self.items if isinstance(each, ChoiceFinished)}


class Asker:
    """Sends requests to an engine and steps it."""

    def __init__(self, engine: Engine, reader, base) -> None:
        self.engine = engine
        self.reader = reader
        self.base = base
        self.tickets = []

    def submit(self, prompt, adapter=None, **sampling) -> Answer:
        if isinstance(prompt, str):
            prompt = TextPrompt(text=prompt)
        elif isinstance(prompt, tuple):
            prompt = TokenPrompt(tokens=prompt)
        spec = SamplingSpec(**{"max_tokens": 12, "temperature": 0, "seed": 1} | sampling)
        asked = GenerationRequest(
            id="r", base=self.base, adapter=adapter, prompt=prompt, sampling=spec
        )
        answer = Answer()
        request, token_bytes = self.reader.read(asked)
        self.tickets.append(self.engine.submit(request, token_bytes, answer.items.append))
        return answer

    def finish(self) -> None:
        while self.engine.step():
            pass

    def ask(self, prompt, adapter=None, **sampling) -> Answer:
        answer = self.submit(prompt, adapter, **sampling)
        self.finish()
        return answer


@pytest.fixture
def asker(make_engine, reader, base) -> Asker:
    return Asker(make_engine(), reader, base)


@pytest.fixture
def reference(base):
    return AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32).eval()


def greedy(model, prompt: tuple[int, ...], max_tokens: int = 12) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return output[0, len(prompt) :].tolist()


@torch.inference_mode()
def logprobs_of(model, prompt, completion: list[int]) -> torch.Tensor:
    """Return log-probabilities (completion, vocabulary) from one plain forward pass."""
    ids = torch.tensor([[*prompt, *completion]])
    return model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)


def assert_same_tokens(found: list[str], expected: list[int], model, prompt, tokenizer) -> None:
    """Tokens are equal, up to a first difference at a near tie of the reference."""
    spelled = [bytes_of(tokenizer, token) for token in expected]
    for position, (left, right) in enumerate(zip(found, spelled, strict=False)):
        if left != right:
            best = logprobs_of(model, prompt, expected)[position].topk(2).values
            assert best[0] - best[1] < NEAR_TIE_NATS, f"differs at {position}"
            return
    assert len(found) == len(spelled)


def bytes_of(tokenizer, token: int) -> bytes:
    from core.engine.token_bytes import TokenBytes

    return TokenBytes(tokenizer).spelled_bytes(token)


def without_end(tokens: list[int], tokenizer) -> list[int]:
    return tokens[:-1] if tokens and tokens[-1] == tokenizer.eos_token_id else tokens


def test_greedy_text_equals_generate(asker, reference, tokenizer):
    for prompt in PROMPTS:
        expected = greedy(reference, prompt)
        answer = asker.ask(prompt)
        assert answer.choice() == tokenizer.decode(expected, skip_special_tokens=True)
        print(repr(answer.choice()))
