"""The first rows of a dataset as tokens, with a flag for the trained ones.

A wrong mask is the most common silent error of fine-tuning; this makes it visible to users.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerFast

from core.batching.rows import (
    InvalidRow,
    LabelledRow,
    PairRow,
    RatedRow,
    Row,
    SourceTargetRow,
    TrainingRow,
)
from core.datasets.read import read_examples
from core.errors import TrainingFailed
from core.spec.job import JobSpec
from core.spec.mask import AUDITED_ROWS, SHOWN_TOKENS, MaskPart, MaskRow, MaskToken
from core.spec.objective import ClassificationSpec
from core.spec.workspace import Workspace
from core.training.data import fit
from core.training.inputs import inputs_of


def audit_file(spec: JobSpec, workspace: Workspace) -> tuple[MaskRow, ...]:
    """Return the first rows of the workspace's training file as in a run of `spec`.

    If the job continues a complete model, the tokenizer of its base is used, because an audit does
    not fetch the parent. The run uses the parent's tokenizer (`base_of`), which differs only if the
    files of the base have changed since the parent was trained.

    Raises TrainingFailed `invalid_training_file`, which names the line, and the errors of
    `inputs_of`.
    """
    inputs = inputs_of(spec, spec.base)
    examples = list(islice(read_examples(workspace.train_file, spec.columns), AUDITED_ROWS))
    try:
        rows = fit(inputs.objective.rows(examples), inputs).rows
    except InvalidRow as error:
        raise TrainingFailed(
            f"Line {error.line} of the training file: {error.message}.",
            param="training_file",
            code="invalid_training_file",
        ) from None
    return audit(spec, inputs.tokenizer, rows)


def audit(
    spec: JobSpec, tokenizer: PreTrainedTokenizerFast, rows: Sequence[TrainingRow]
) -> tuple[MaskRow, ...]:
    """Return the first of `rows` with their tokens as text."""
    return tuple(
        MaskRow(
            line=row.line,
            parts=tuple(_parts(tokenizer, row)),
            labels=_labels(spec, row),
        )
        for row in rows[:AUDITED_ROWS]
    )


def _parts(tokenizer: PreTrainedTokenizerFast, row: TrainingRow) -> Iterator[MaskPart]:
    match row:
        case Row():
            yield _part(tokenizer, "text", row.tokens, row.trained)
        case PairRow():
            yield _part(tokenizer, "chosen", row.chosen.tokens, row.chosen.trained)
            yield _part(tokenizer, "rejected", row.rejected.tokens, row.rejected.trained)
        case LabelledRow():
            yield _part(tokenizer, "text", row.tokens, [False] * len(row.tokens))
        case SourceTargetRow():
            yield _part(tokenizer, "source", row.source, [False] * len(row.source))
            yield _part(tokenizer, "target", row.target, [True] * len(row.target))
        case _:
            raise TypeError(f"a {type(row).__name__} has no mask to show")


def _part(
    tokenizer: PreTrainedTokenizerFast,
    name: Literal["text", "chosen", "rejected", "source", "target"],
    tokens: Sequence[int],
    trained: Sequence[bool],
) -> MaskPart:
    texts = _texts(tokenizer, tokens[:SHOWN_TOKENS])
    return MaskPart(
        name=name,
        tokens=tuple(
            MaskToken(text=text, trained=is_)
            for text, is_ in zip(texts, trained[:SHOWN_TOKENS], strict=True)
        ),
        total_tokens=len(tokens),
        trained_tokens=sum(trained),
    )


def _texts(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[int]) -> Iterator[str]:
    """Yield the text of each token; a character of several tokens belongs to the last one."""
    stream = DecodeStream(skip_special_tokens=False)
    for token in tokens:
        yield stream.step(tokenizer.backend_tokenizer, token) or ""


def _labels(spec: JobSpec, row: TrainingRow) -> tuple[str, ...]:
    if isinstance(row, LabelledRow) and isinstance(spec.objective, ClassificationSpec):
        return tuple(spec.objective.labels[label] for label in row.labels)
    if isinstance(row, RatedRow):
        return ("true" if row.is_good else "false",)
    return ()
