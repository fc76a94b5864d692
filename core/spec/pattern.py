"""Restricts regular expressions of users to patterns that match quickly.

Python's matcher tries every way to match and has no time limit, so `(a+)+$` on the path of one
layer can keep a core busy for a day.
"""

import re
from collections.abc import Iterable
from math import prod

MOST_WAYS = 20_000
"""The limit for the ways to match, over all patterns of a job: in the worst case about a second for
the 224 layers of an 8B model."""

_LONGEST_RUN: int = 12
"""The weight of an unbounded repetition. A path has about 40 characters, but the matcher tries
repetitions of one character many times as fast as the branches of a group."""

_PIECE = re.compile(
    r"(?P<single>(?:\\[^0-9A-Za-z]|\\[dDwWsSbB]|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\\[\](){}|*+?]))"
    r"(?:(?P<repeat>[*+?]|\{(?P<least>\d*)(?P<comma>,?)(?P<most>\d*)\})\??)?"
    r"|(?P<open>\((?:\?:)?)|(?P<close>\))|(?P<bar>\|)"
)


def require_simple(patterns: Iterable[str]) -> None:
    """Raise ValueError for a pattern that is not a regular expression, or is costly to match.

    Supported are characters, classes, `.`, groups with `|`, and repetitions of a single character.
    """
    ways = 0
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        ways += _ways(pattern)
    if ways > MOST_WAYS:
        raise ValueError(
            "the patterns can match a layer in too many ways; use fewer '*', '+' and '|', or name "
            "the layers"
        )


def _ways(pattern: str) -> int:
    """Return an upper bound of the ways to match a valid expression at one position."""
    ways, position = 1, 0
    branches = [1]  # of each group, the whole first; a product bounds nested groups too
    inside = [0]
    while position < len(pattern):
        piece = _PIECE.match(pattern, position)
        if piece is None:
            raise ValueError(
                f"{pattern!r} is too complex at {pattern[position : position + 10]!r}: only a "
                "single character or class may be repeated, and groups are plain (…) or (?:…)"
            )
        if piece["repeat"]:
            ways *= _lengths(piece)
        elif piece["open"]:
            inside.append(len(branches))
            branches.append(1)
        elif piece["close"]:
            inside.pop()
        elif piece["bar"]:
            branches[inside[-1]] += 1
        position = piece.end()
    return ways * prod(branches)


def _lengths(piece: re.Match[str]) -> int:
    """Return the number of possible lengths of a repetition of one character."""
    if piece["repeat"] == "?":
        return 2
    if piece["repeat"] in "*+" or (not piece["most"] and piece["comma"]):
        return _LONGEST_RUN
    if not piece["comma"]:
        return 1
    return min(_LONGEST_RUN, int(piece["most"]) - int(piece["least"] or 0) + 1)
