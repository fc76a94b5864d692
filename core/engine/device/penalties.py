"""Changes logits before a token is drawn: bias, penalties, grammars and forbidden ends.

In the order of vLLM: bias, repetition, frequency and presence. They change which token is chosen,
but not its score.
"""
# B rows of the batch, N repeated tokens of all rows, V vocabulary

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from core.engine.policy.request import Request, SequenceState

_Rows = Sequence[tuple[int, SequenceState[Request]]]
"""Some sequences of a batch, each with its row."""


def apply_penalties(logits_BV: Tensor, sequences: Collection[SequenceState[Request]]) -> Tensor:
    """Return the logits with the bias and the penalties of each request.

    Frequency and presence penalties count generated tokens, not the prompt, like OpenAI's. The
    repetition penalty counts both, like that of transformers.
    """
    rows = [(row, each) for row, each in enumerate(sequences) if each.request.changes_logits]
    if not rows:
        return logits_BV
    logits_BV = logits_BV.to(torch.float32, copy=True)
    _add(logits_BV, [(row, each.request.sampling.logit_bias) for row, each in rows])
    _repetition(logits_BV, [(row, each) for row, each in rows if _repeats(each)])
    _add(logits_BV, [(row, _occurrence_penalties(each)) for row, each in rows])
    return logits_BV


def apply_grammars(logits_BV: Tensor, sequences: Collection[SequenceState[Request]]) -> Tensor:
    """Return the logits with -inf for tokens that an answer must not have next.

    Its grammar forbids them, or it is too short for an end token or stop token. A complete
    structured output that allows nothing else ends before `min_tokens`.
    """
    rows = [
        (row, each)
        for row, each in enumerate(sequences)
        if each.matcher is not None or _is_too_short(each)
    ]
    if not rows:
        return logits_BV
    logits_BV = logits_BV.clone()
    for row, sequence in rows:
        ends = sorted(sequence.request.ending_ids) if _is_too_short(sequence) else []
        if sequence.matcher is None:
            if len(ends) < logits_BV.shape[-1]:
                logits_BV[row, ends] = float("-inf")
            continue
        allowed_V = sequence.matcher.allowed()
        longer_V = allowed_V.copy()
        longer_V[ends] = False
        allowed_V = torch.from_numpy(longer_V if longer_V.any() else allowed_V)
        logits_BV[row].masked_fill_(~allowed_V.to(logits_BV.device), float("-inf"))
    return logits_BV


def _is_too_short(sequence: SequenceState[Request]) -> bool:
    return len(sequence.tokens) < sequence.request.sampling.min_tokens


def _add(logits_BV: Tensor, addends: Sequence[tuple[int, dict[int, float]]]) -> None:
    for row, of_row in addends:
        if of_row:
            tokens = torch.tensor(list(of_row), device=logits_BV.device)
            logits_BV[row, tokens] += torch.tensor(list(of_row.values())).to(logits_BV)


def _occurrence_penalties(sequence: SequenceState[Request]) -> dict[int, float]:
    """Return the addend to the logit of each token that has been generated."""
    frequency = sequence.request.sampling.frequency_penalty
    presence = sequence.request.sampling.presence_penalty
    if not (frequency or presence):
        return {}
    return {
        token: -(frequency * times + presence) for token, times in Counter(sequence.tokens).items()
    }


def _repeats(sequence: SequenceState[Request]) -> bool:
    return sequence.request.sampling.repetition_penalty != 1


def _repetition(logits_BV: Tensor, rows: _Rows) -> None:
    """Make tokens that have occurred less likely. Source: https://arxiv.org/abs/1909.05858."""
    if not rows:
        return
    occurred = [_occurred(sequence) for _, sequence in rows]
    lengths_R = torch.tensor([len(tokens) for tokens in occurred])

    def each_token(values: list[float] | list[int]) -> Tensor:
        return torch.tensor(values).repeat_interleave(lengths_R).to(logits_BV.device)

    where = (each_token([row for row, _ in rows]), torch.cat(occurred).to(logits_BV.device))
    penalty_N = each_token([each.request.sampling.repetition_penalty for _, each in rows])
    logits_N = logits_BV[where]
    logits_BV[where] = torch.where(logits_N > 0, logits_N / penalty_N, logits_N * penalty_N)


@dataclass
class _Occurred:
    """The different tokens of a sequence, of which `written` generated ones are counted."""

    known: set[int] = field(default_factory=set)
    tokens: list[Tensor] = field(default_factory=list)
    written: int = 0

    def add(self, tokens: Sequence[int]) -> None:
        new = [token for token in dict.fromkeys(tokens) if token not in self.known]
        self.known.update(new)
        if new:
            self.tokens = [torch.cat([*self.tokens, torch.tensor(new)])]


_occurred_in: "WeakKeyDictionary[SequenceState[Request], _Occurred]" = WeakKeyDictionary()


def _occurred(sequence: SequenceState[Request]) -> Tensor:
    """Return the different tokens (N,) of a decoder's prompt and answer.

    The prompt of an encoder-decoder is not repeated by its answer, and does not count.
    """
    found = _occurred_in.get(sequence)
    if found is None:
        found = _occurred_in[sequence] = _Occurred()
        if sequence.request.model.task != "seq2seq":
            found.add(sequence.request.prompt_tokens)
    found.add(sequence.tokens[found.written :])
    found.written = len(sequence.tokens)
    return found.tokens[0] if found.tokens else torch.zeros(0, dtype=torch.long)
