"""Both files of a job as rows of tokens, every one of them fit to train on."""

from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedConfig

from core.batching.rows import InvalidRow, TrainingRow
from core.datasets.read import read_examples
from core.errors import TrainingFailed
from core.objectives.objective import Objective
from core.spec.training import TrainingSpec

FileParam = Literal["training_file", "validation_file"]


def load_rows(
    path: Path,
    param: FileParam,
    objective: Objective[Any],
    config: PreTrainedConfig,
    spec: TrainingSpec,
) -> list[TrainingRow]:
    """Return every row of the file; TrainingFailed (`invalid_<param>`) names the first bad line."""
    code = f"invalid_{param}"
    try:
        rows = objective.rows(list(read_examples(path)))
        for row in rows:
            _require_trainable(row, config.max_position_embeddings, spec.max_length)
    except InvalidRow as fault:
        message = f"Line {fault.line} of the {param.replace('_', ' ')}: {fault.message}."
        raise TrainingFailed(message, param=param, code=code) from None
    except TrainingFailed as fault:
        raise TrainingFailed(fault.message, param=param, code=code) from None
    if not rows:
        raise TrainingFailed(f"The {param.replace('_', ' ')} is empty.", param=param, code=code)
    return rows


def _require_trainable(row: TrainingRow, context: int, max_length: int) -> None:
    tokens = row.length
    if tokens > context:
        raise InvalidRow(
            row.line,
            f"the row has {tokens} tokens, more than the context of the base model ({context}); "
            "split or shorten it",
        )
    if tokens > max_length:
        raise InvalidRow(
            row.line,
            f"the row has {tokens} tokens, more than training.max_length ({max_length}); "
            "shorten it or raise the limit",
        )
    if not row.targets:
        raise InvalidRow(
            row.line,
            "no token would be trained; give it an assistant message with weight 1 and content",
        )
