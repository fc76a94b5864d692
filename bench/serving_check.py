"""Checks before a measurement that all contenders give the answers of transformers and PEFT.

Shapes: B answers, T tokens, V vocabulary.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft import PeftModel

from core.engine.policy.request import Request
from core.engine.results import SampledToken
from core.engine.text.answers import Detokenizer
from core.engine.text.token_bytes import TokenBytes
from core.spec.generation import GenerationEvent

NEAR_TIE_NATS = 1e-3
"""fp32 sums in another order may swap two tokens whose difference is at most this."""


class RecordedAnswer(Detokenizer):
    """Also records the token ids."""

    def __init__(self, request: Request, token_bytes: TokenBytes) -> None:
        super().__init__(request, token_bytes)
        self.tokens: list[int] = []

    def take(self, sequence: Any, token: SampledToken) -> Iterator[GenerationEvent]:
        self.tokens.append(token.token_id)
        return super().take(sequence, token)


def record(
    recorded: list[RecordedAnswer], request: Request, token_bytes: TokenBytes
) -> RecordedAnswer:
    """Create an answer and record it, in the order of the requests."""
    recorded.append(RecordedAnswer(request, token_bytes))
    return recorded[-1]


def require_same_model(
    reference: PeftModel,
    prompts: Sequence[tuple[int, ...]],
    adapters: int,
    *,
    ours: Sequence[list[int]],
    theirs: Sequence[list[int]],
    their_near_tie_nats: float = NEAR_TIE_NATS,
) -> None:
    """Stop unless we and llama.cpp both write what the reference finds the likeliest, and say so.

    Prompts take the adapters "a0", "a1", … of the reference in turns, or with 0 the base alone.
    llama.cpp never writes the end of the text.
    """
    end = [reference.config.eos_token_id]
    for name, answers, never, near_tie_nats in (
        ("Tunesmith", ours, [], NEAR_TIE_NATS),
        ("llama.cpp", theirs, end, their_near_tie_nats),
    ):
        worst = _worst_nats(reference, prompts, answers, adapters, never)
        if worst > near_tie_nats:
            raise SystemExit(
                f"{name} computes another model: with {adapters} adapters it wrote a token that is "
                f"{worst:.3g} nat less likely than the best one at its position."
            )
    same = sum(mine == other for mine, other in zip(ours, theirs, strict=True))
    print(
        f"{adapters} adapters: {same} of {len(ours)} answers of llama.cpp are the same as ours; in "
        "the others only near-ties differ.",
        file=sys.stderr,
    )


def _worst_nats(
    reference: PeftModel,
    prompts: Sequence[tuple[int, ...]],
    answers: Sequence[list[int]],
    adapters: int,
    never: Sequence[int],
) -> float:
    if not adapters:
        with reference.disable_adapter():
            return shortfall_nats(reference, prompts, answers, never).max().item()
    worst = []
    for adapter in range(adapters):
        reference.set_adapter(f"a{adapter}")
        rows = slice(adapter, None, adapters)
        worst.append(shortfall_nats(reference, prompts[rows], answers[rows], never).max().item())
    return max(worst)


@torch.inference_mode()
def shortfall_nats(
    model: torch.nn.Module,
    prompts: Sequence[tuple[int, ...]],
    answers: Sequence[list[int]],
    never: Sequence[int],
) -> torch.Tensor:
    """Return, (B, T), how much less likely each token is than the likeliest one there, in nats."""
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    ids_BT, written_BT = torch.tensor(rows), torch.tensor(answers)
    logits_BTV = model(input_ids=ids_BT[:, :-1]).logits[:, -written_BT.shape[1] :]
    logits_BTV[..., list(never)] = -torch.inf
    chosen_BT = logits_BTV.gather(-1, written_BT[..., None])[..., 0]
    return logits_BTV.amax(-1) - chosen_BT
