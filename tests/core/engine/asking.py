"""Asking an engine that is stepped by hand, and what transformers and PEFT answer."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from core.engine.engine import Engine
from core.engine.text.answers import Detokenizer
from core.engine.text.token_bytes import TokenBytes
from core.spec.generation import (
    ChoiceFinished,
    GeneratedToken,
    GenerationDelta,
    GenerationRequest,
    GenerationStarted,
    SamplingSpec,
    TokenPrompt,
)

NEAR_TIE_NATS = 1e-3
"""fp32 rounding may turn a choice between tokens that are closer than this (decisions.md 16)."""

END = 0
"""The id of <|endoftext|>."""

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

    def text(self, choice: int = 0) -> str:
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

    def read(self, prompt, adapter=None, **sampling):
        if isinstance(prompt, tuple):
            prompt = TokenPrompt(tokens=prompt)
        spec = SamplingSpec(**{"max_tokens": 12, "temperature": 0, "seed": 1} | sampling)
        asked = GenerationRequest(
            id="r", base=self.base, adapter=adapter, prompt=prompt, sampling=spec
        )
        return self.reader.read(asked)

    def submit(self, prompt, adapter=None, **sampling) -> Answer:
        answer = Answer()
        request, token_bytes = self.read(prompt, adapter, **sampling)
        self.tickets.append(
            self.engine.submit(request, Detokenizer(request, token_bytes), answer.items.append)
        )
        return answer

    def finish(self) -> None:
        while self.engine.step():
            pass

    def ask(self, prompt, adapter=None, **sampling) -> Answer:
        answer = self.submit(prompt, adapter, **sampling)
        self.finish()
        return answer


def greedy(model, prompt: tuple[int, ...], max_tokens: int = 12) -> list[int]:
    """Return what `generate` adds to a prompt, without the token that ends the text."""
    ids_BT = torch.tensor([prompt])
    output_BT = model.generate(
        input_ids=ids_BT,
        attention_mask=torch.ones_like(ids_BT),
        max_new_tokens=max_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return [token for token in output_BT[0, len(prompt) :].tolist() if token != END]


@torch.inference_mode()
def logprobs_after(model, prompt: tuple[int, ...], completion: list[int]) -> torch.Tensor:
    """Return log-probabilities (T, V) of each completion token from one plain forward pass."""
    ids_BT = torch.tensor([[*prompt, *completion]])
    return model(ids_BT).logits[0, len(prompt) - 1 : -1].log_softmax(-1)


def assert_greedy(answer: Answer, model, prompt, tokenizer) -> None:
    """The answer is that of `generate`, up to a first difference at a near tie."""
    expected = greedy(model, prompt)
    token_bytes = TokenBytes(tokenizer)
    found = [bytes(each.bytes) for each in answer.tokens()]
    decoded = [token_bytes.decoded_bytes(token) for token in expected]
    for position, (left, right) in enumerate(zip(found, decoded, strict=False)):
        if left != right:
            best = logprobs_after(model, prompt, expected)[position].topk(2).values
            assert best[0] - best[1] < NEAR_TIE_NATS, f"differs at token {position}"
            return
    assert len(found) == len(decoded)
    assert answer.text() == tokenizer.decode(expected)


class DecodedById(Detokenizer):
    """Keeps the ids of the tokens, which the text of a random model does not give back."""

    def take(self, sequence, token) -> Iterator:
        yield from super().take(sequence, token)
        yield token


@dataclass(frozen=True)
class Said:
    """An answer token by token."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


def said_of(items: list) -> Said:
    """Return what an answer that is `DecodedById` and asked for log-probabilities says."""
    assert isinstance(items[0], GenerationStarted), items
    tokens = [each for each in items if hasattr(each, "token_id")]
    return Said(
        tuple(each.token_id for each in tokens), tuple(each.scores.logprob for each in tokens)
    )


@torch.inference_mode()
def next_logprobs(model: nn.Module, prompt: tuple[int, ...], said: tuple[int, ...]) -> Tensor:
    """Return log-probabilities (T, V) of each token said, from one plain forward pass."""
    if model.config.is_encoder_decoder:
        start = model.config.decoder_start_token_id
        decoder_ids = torch.tensor([[start, *said[:-1]]])
        source = torch.tensor([prompt])
        output = model(
            input_ids=source,
            attention_mask=torch.ones_like(source),
            decoder_input_ids=decoder_ids,
        )
    else:
        ids = torch.tensor([[*prompt, *said[:-1]]])
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return output.logits[0, -len(said) :].log_softmax(dim=-1)
