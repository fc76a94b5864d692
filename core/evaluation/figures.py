"""Log-probabilities of the targets of rows, computed by the training code."""

# L labelled tokens, N labels

from collections.abc import Sequence
from dataclasses import replace

import torch

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import within_memory
from core.batching.packing import LabelledBatch, collate, pack
from core.batching.padding import PaddedBatch, pad
from core.batching.rows import LabelledRow, Row, SourceTargetRow
from core.models.log_probabilities import log_probabilities
from core.models.output_head import output_head
from core.objectives.classification import classify
from core.spec.parity import nats

JudgedRow = Row | SourceTargetRow | LabelledRow


@torch.no_grad()
def figures_of(
    adapted: AdaptedModel, rows: Sequence[JudgedRow], budget_tokens: int, *, multi_label: bool
) -> list[list[float]]:
    """Return, for each row, the log-probabilities of its labelled tokens or of its labels, in nats.

    The rows are of one kind and run in the micro-batches of training. Leaves the model in
    evaluation mode. Raises OutOfMemory or TrainingFailed when memory runs out.
    """
    adapted.model.eval()
    numbered = [replace(row, line=index) for index, row in enumerate(rows)]
    found: dict[int, list[float]] = {}
    for part in pack(numbered, budget_tokens):
        with within_memory(part):
            if isinstance(part[0], LabelledRow):
                figures = _of_labels(adapted, part, multi_label)
            else:
                figures = _of_tokens(adapted, part)
        found.update(zip((row.line for row in part), figures, strict=True))
    return [found[index] for index in range(len(rows))]


def _of_labels(
    adapted: AdaptedModel, rows: Sequence[JudgedRow], multi_label: bool
) -> list[list[float]]:
    texts = [row.tokens for row in rows if isinstance(row, LabelledRow)]
    return [
        [nats(probability) for probability in probabilities_N.tolist()]
        for logits_N in classify(adapted, texts)
        for probabilities_N in [logits_N.sigmoid() if multi_label else logits_N.softmax(dim=-1)]
    ]


def _of_tokens(adapted: AdaptedModel, rows: Sequence[JudgedRow]) -> list[list[float]]:
    config, device = adapted.model.config, adapted.model.device
    batch: PaddedBatch | LabelledBatch
    if pairs := [row for row in rows if isinstance(row, SourceTargetRow)]:
        batch = pad(pairs, config.decoder_start_token_id, config.pad_token_id, device)
        states = adapted.decoder_states(batch)
    else:
        batch = collate([row for row in rows if isinstance(row, Row)], device)
        states = adapted.hidden_states(batch)
    hidden_LE = states.index_select(0, batch.predicting_L)
    found_L = log_probabilities(hidden_LE, output_head(adapted.model), batch.targets_L)
    return [found_L[batch.rows_L == row].tolist() for row in range(len(rows))]
