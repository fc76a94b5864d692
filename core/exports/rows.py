"""The rows that an export is replayed with: those of its job, or fixed texts without them."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from core.models.precision_texts import TEXTS
from core.objectives.classification import class_tokens
from core.spec.export_steps import ScoredRow
from core.spec.objective import Task
from core.spec.parity import ParityReference, ReplayedRow, ReplayedText

LONGEST_TEXT = 128
"""Tokens of a fixed text."""


def rows_of(
    reference: ParityReference | None, tokenizer: PreTrainedTokenizerFast, task: Task
) -> tuple[ScoredRow, ...]:
    """Return the rows of the reference; fixed texts if it has none."""
    if reference is None or not reference.rows:
        return _fixed(tokenizer, task)
    texts = [row.text for row in reference.rows if isinstance(row, ReplayedText)]
    if texts:
        return tuple(ScoredRow(tokens=tokens) for tokens in class_tokens(tokenizer, texts))
    return tuple(
        _row(row, task) for row in reference.rows if isinstance(row, ReplayedRow) and row.figures
    )


def scored_indices(row: ScoredRow) -> list[int]:
    """Return the positions of the scored tokens of a decoder's row."""
    return [index for index, is_scored in enumerate(row.scored) if is_scored]


def _row(row: ReplayedRow, task: Task) -> ScoredRow:
    if task == "seq2seq":
        return ScoredRow(tokens=row.prompt_ids, target=row.answer)
    scored = tuple(logprob is not None for logprob in row.logprobs)
    return ScoredRow(tokens=(*row.prompt_ids, *row.answer), scored=scored)


def _fixed(tokenizer: PreTrainedTokenizerFast, task: Task) -> tuple[ScoredRow, ...]:
    rows = [tokens[:LONGEST_TEXT] for tokens in class_tokens(tokenizer, TEXTS)]
    if task == "classification":
        return tuple(ScoredRow(tokens=tokens) for tokens in rows)
    if task == "seq2seq":
        halves = _in_halves(rows)
        return tuple(ScoredRow(tokens=source, target=target) for source, target in halves)
    return tuple(ScoredRow(tokens=each, scored=(False, *(True for _ in each[1:]))) for each in rows)


def _in_halves(
    rows: Sequence[tuple[int, ...]],
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(each[: len(each) // 2], each[len(each) // 2 :]) for each in rows]
