"""The literal texts around a tool call, with placeholders for its name and id.

Parsing accepts any white space where a literal has some, because models vary it. Plain Python.
"""

import re
from dataclasses import dataclass
from itertools import takewhile

NAME_HOLE, ID_HOLE = "\udffe", "\udfff"
"""Placeholders for the name and the id of a call in a literal."""

NAME = r"[A-Za-z0-9_.\-]+"
_ID = r"[A-Za-z0-9_.:\-]*"
_PIECES = re.compile(f"([{NAME_HOLE}{ID_HOLE}]|\\s+)")


@dataclass(frozen=True)
class Frame:
    """The literals around calls: `opening (head … tail) between (head … tail) closing`."""

    opening: str
    head: str
    tail: str
    between: str = ""
    closing: str = ""

    @staticmethod
    def of_two(before: str, amid: str, after: str) -> "Frame":
        """Return the frame of two calls, from the texts before, between and after them."""
        head = common_end(before, amid)
        rest = amid.removesuffix(head)
        tail = common_start(rest, after)
        return Frame(
            before.removesuffix(head), head, tail, rest[len(tail) :], after.removeprefix(tail)
        )

    @property
    def marker(self) -> str:
        """The literal that marks the start of calls; empty if they start like JSON or a list."""
        literal = re.split(f"[{NAME_HOLE}{ID_HOLE}]", self.opening + self.head)[0].strip()
        return re.split(r"\s", literal)[0].rstrip("[{(,\"'")


def common_start(first: str, second: str) -> str:
    """Return the longest common prefix."""
    pairs = zip(first, second, strict=False)
    return "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def common_end(first: str, second: str) -> str:
    """Return the longest common suffix."""
    return common_start(first[::-1], second[::-1])[::-1]


def flexible(literal: str) -> str:
    """Return a pattern for a literal in which each white space matches any or no white space."""
    return "".join(map(_piece, _PIECES.split(literal)))


def _piece(piece: str) -> str:
    if piece == NAME_HOLE:
        return NAME
    if piece == ID_HOLE:
        return _ID
    return r"\s*" if piece.isspace() else re.escape(piece)
