"""Log-probabilities and preferred tokens of a plain model of transformers or PEFT.

The model is used through its public `forward`, as by a user of the export.
"""

# T tokens, S scored tokens, V vocabulary, N labels, D tokens of a target

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.exports.rows import scored_indices
from core.spec.export_steps import RowFigures, ScoredRow
from core.spec.objective import Task


@torch.no_grad()
def score(
    model: Any, rows: Sequence[ScoredRow], task: Task, *, multi_label: bool
) -> tuple[RowFigures, ...]:
    """Return the figures of every row, one row at a time.

    Virtual tokens before a text may add positions to the logits; the last T belong to the text.
    """
    if task == "classification":
        return tuple(_of_labels(model, row, multi_label) for row in rows)
    return tuple(_of_tokens(model, row, task) for row in rows)


def _of_tokens(model: Any, row: ScoredRow, task: Task) -> RowFigures:
    device = model.device
    tokens_T = torch.tensor(row.tokens, device=device)
    if task == "seq2seq":
        wanted_S = torch.tensor(row.target, device=device)
        logits_SV = model(input_ids=tokens_T[None], labels=wanted_S[None]).logits[0]
        return _figures(logits_SV[-len(wanted_S) :], wanted_S)
    positions_S = torch.tensor(scored_indices(row), device=device)
    logits_TV = model(input_ids=tokens_T[None]).logits[0, -len(tokens_T) :]
    return _figures(logits_TV[positions_S - 1], tokens_T[positions_S])


def _figures(logits_SV: Tensor, wanted_S: Tensor) -> RowFigures:
    logprobs_SV = logits_SV.float().log_softmax(dim=-1)
    found_S = logprobs_SV.gather(1, wanted_S[:, None])[:, 0]
    return RowFigures(
        logprobs=tuple(found_S.tolist()), preferred=tuple(logits_SV.argmax(dim=-1).tolist())
    )


def _of_labels(model: Any, row: ScoredRow, multi_label: bool) -> RowFigures:
    logits_N = model(input_ids=torch.tensor(row.tokens, device=model.device)[None]).logits[0]
    logits_N = logits_N.float()
    logprobs_N = (
        torch.nn.functional.logsigmoid(logits_N) if multi_label else logits_N.log_softmax(dim=-1)
    )
    preferred = () if multi_label else (int(logits_N.argmax()),)
    return RowFigures(logprobs=tuple(logprobs_N.tolist()), preferred=preferred)
