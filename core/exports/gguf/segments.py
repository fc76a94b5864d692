"""Texts with slots, and how they are compared."""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, Protocol


class Slot(Enum):
    """What a part of a conversation holds besides fixed text."""

    SYSTEM = "system"
    TOOLS = "tools"
    ID = "id"


Segments = tuple[str | Slot, ...]


class Shared(Protocol):
    """Returns the text that two texts begin with."""

    def __call__(self, one: str, other: str, /) -> str: ...


def with_slots(text: str, words: Sequence[tuple[str, Slot]]) -> Segments:
    """Return a text with a slot in the place of each word."""
    found: list[str | Slot] = [text]
    for word, slot in words:
        found = [part for each in found for part in _divided(each, word, slot)]
    return tuple(part for part in found if part != "")


def split(one: Segments, other: Segments, shared: Shared) -> tuple[Segments, Segments, Segments]:
    """Return what both begin with, the rest of one, and the rest of the other."""
    start: list[str | Slot] = []
    left, right = _joined(one), _joined(other)
    while left and right and left[0] == right[0]:
        start.append(left.pop(0))
        right.pop(0)
    if left and right and isinstance(left[0], str) and isinstance(right[0], str):
        text = shared(left[0], right[0])
        start.append(text)
        left[0], right[0] = left[0].removeprefix(text), right[0].removeprefix(text)
    return tuple(_joined(start)), tuple(_joined(left)), tuple(_joined(right))


def _divided(segment: Any, word: str, slot: Slot) -> Iterator[str | Slot]:
    if isinstance(segment, Slot):
        yield segment
        return
    first, *others = segment.split(word)
    yield first
    for other in others:
        yield from (slot, other)


def _joined(segments: Sequence[str | Slot]) -> list[str | Slot]:
    """Return the segments with neighboring texts as one, and without empty ones."""
    found: list[str | Slot] = []
    for each in segments:
        if isinstance(each, str) and found and isinstance(found[-1], str):
            found[-1] += each
        elif each != "":
            found.append(each)
    return found
