"""Truncates rows that are too long: a pure function of the row, the limit and the side.

The opening token of a text (beginning-of-text, a classifier's [CLS]) is kept, and so is the closing
token of a text that is processed as a whole ([SEP], the end of a target). The end-of-text token of
a decoder row is cut together with its end. The limit applies to each sequence of a row separately:
each answer of a pair with its prompt, a source, a target.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Literal, TypeVar, cast

from transformers import PreTrainedTokenizerFast

from core.batching.rows import (
    InvalidRow,
    LabelledRow,
    PairRow,
    Row,
    SourceTargetRow,
    TrainingRow,
    token_sequences,
)

RowType = TypeVar("RowType", bound=TrainingRow)
Side = Literal["end", "start"]


def longest_sequence(row: TrainingRow) -> int:
    """Return the number of tokens of the longest sequence of the row."""
    return max(map(len, token_sequences(row)))


def cut(row: RowType, max_length: int, side: Side, tokenizer: PreTrainedTokenizerFast) -> RowType:
    """Cut the row to `max_length` tokens at its end or its start.

    Both answers of a pair keep the same end of their prompt; an answer is cut only if it is too
    long by itself. Targets are always cut at the end. Raises InvalidRow if no labelled token would
    remain, or if the answers of a pair would become equal.
    """
    if longest_sequence(row) <= max_length:
        return row
    bound = _Bound(max_length, side, tokenizer)
    match row:
        case Row():
            shorter: TrainingRow = bound.row(row)
        case PairRow():
            shorter = bound.pair(row)
        case LabelledRow():
            shorter = replace(row, tokens=bound.closed(row.tokens, side))
        case SourceTargetRow():
            source, target = bound.closed(row.source, side), bound.closed(row.target, "end")
            shorter = replace(row, source=source, target=target)
        case _:
            raise TypeError(f"cannot truncate rows of type {type(row).__name__}")
    return cast(RowType, shorter)


class _Bound:
    """A limit, and the tokens that are always kept."""

    def __init__(self, max_length: int, side: Side, tokenizer: PreTrainedTokenizerFast) -> None:
        self._max_length = max_length
        self._side = side
        self._first_token = tokenizer.bos_token_id
        self._special_tokens = frozenset(tokenizer.all_special_ids)

    def row(self, row: Row) -> Row:
        """Cut a sequence that the model continues."""
        if self._side == "end":
            kept = list(range(self._max_length))
        else:
            opening = self._opening(row)
            kept = [*range(opening), *range(row.length - self._max_length + opening, row.length)]
        shorter = _selected(row, kept)
        if any(row.trained) and not any(shorter.trained):
            raise InvalidRow(
                row.line,
                f"truncation removes all its labelled tokens: it has {row.length} tokens, and "
                f"training.max_length with training.truncation {self._side!r} keeps "
                f"{self._max_length}; shorten the row, raise the limit or truncate the other side",
            )
        return shorter

    def pair(self, pair: PairRow) -> PairRow:
        rows = pair.chosen, pair.rejected
        prompts = [row.trained.index(True) for row in rows]
        longest = max(row.length - start for row, start in zip(rows, prompts, strict=True))
        opening = self._opening(pair.chosen)
        ending = max(1, self._max_length - longest - opening)
        shorter = []
        for row, start in zip(rows, prompts, strict=True):
            kept = [*range(min(opening, start)), *range(max(opening, start - ending), row.length)]
            shorter.append(_selected(row, kept[: self._max_length]))
        chosen, rejected = shorter
        if chosen.tokens == rejected.tokens:
            raise InvalidRow(
                pair.line,
                f"both answers are equal when truncated to training.max_length "
                f"({self._max_length}); shorten them or raise the limit",
            )
        return PairRow(pair.line, chosen, rejected)

    def closed(self, tokens: Sequence[int], side: Side) -> tuple[int, ...]:
        """Cut a text between its opening and closing special tokens."""
        if len(tokens) <= self._max_length:
            return tuple(tokens)
        opening = sum(1 for _ in takewhile(self._special_tokens.__contains__, tokens))
        closing = sum(1 for _ in takewhile(self._special_tokens.__contains__, reversed(tokens)))
        body = tokens[opening : len(tokens) - closing]
        room = max(0, self._max_length - opening - closing)
        body = body[:room] if side == "end" else body[len(body) - room :]
        return (*tokens[:opening], *body, *tokens[len(tokens) - closing :])

    def _opening(self, row: Row) -> int:
        return int(self._first_token is not None and row.tokens[0] == self._first_token)


def _selected(row: Row, kept: Sequence[int]) -> Row:
    trained = (row.trained[index] for index in kept[1:])
    tokens = tuple(row.tokens[index] for index in kept)
    return replace(row, tokens=tokens, trained=(False, *trained))
