"""Finds equal rows within and between files, and splits a training file into two."""

from collections.abc import Hashable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from core.batching.order import row_order
from core.batching.rows import TrainingRow
from core.errors import TrainingFailed


def duplicates_of(rows: Sequence[TrainingRow]) -> dict[int, int]:
    """Return index and line of every row with the same content as an earlier one."""
    seen: set[Hashable] = set()
    found: dict[int, int] = {}
    for index, row in enumerate(rows):
        content = _content(row)
        if content in seen:
            found[index] = row.line
        seen.add(content)
    return found


def shared_by(trained: Sequence[TrainingRow], judged: Sequence[TrainingRow]) -> int:
    """Return the number of validation rows that are also trained on."""
    contents = set(map(_content, trained))
    return sum(_content(row) in contents for row in judged)


def hold_out(
    rows: Sequence[TrainingRow], share: float, seed: int
) -> tuple[list[TrainingRow], list[TrainingRow]]:
    """Split rows into training and validation rows, at least one of each, in their order.

    Equal rows, and rows of the same line, are in the same part. The same seed gives the same split.
    Raises TrainingFailed if there are too few different rows.
    """
    groups = _groups(rows)
    wanted = max(1, round(share * len(rows)))
    held: set[int] = set()
    # epochs count from 1, so the order of epoch 0 belongs to the split
    for index in row_order(seed, 0, len(groups))[:-1]:
        if len(held) >= wanted:
            break
        held.update(groups[index])
    if not held:
        raise TrainingFailed(
            "The training file does not have two different rows, so none can be held out. Add "
            "rows, or set evaluation.split to 0.",
            param="evaluation.split",
            code="invalid_training_file",
        )
    return (
        [row for index, row in enumerate(rows) if index not in held],
        [row for index, row in enumerate(rows) if index in held],
    )


def _groups(rows: Sequence[TrainingRow]) -> list[list[int]]:
    """Return groups of the indices of rows that must stay together."""
    leader = list(range(len(rows)))

    def lead(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    first: dict[Hashable, int] = {}
    for index, row in enumerate(rows):
        for key in (("line", row.line), _content(row)):
            a, b = lead(index), lead(first.setdefault(key, index))
            leader[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for index in range(len(rows)):
        groups.setdefault(lead(index), []).append(index)
    return list(groups.values())


def _content(value: Any) -> Hashable:
    """Return the content of a row without its line numbers."""
    if not is_dataclass(value):
        return value  # type: ignore[no-any-return]
    return tuple(
        _content(getattr(value, field.name)) for field in fields(value) if field.name != "line"
    )
