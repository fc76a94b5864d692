"""Regular expressions from strangers, so simple that matching one costs next to nothing.

Python's matcher tries every way in which a pattern may fit and knows no time limit, so
`(a+)+$` on the path of one layer can keep a core busy for a day.
"""

import re
from collections.abc import Iterable
from math import prod

MOST_WAYS = 20_000
"""How many ways of fitting a path all patterns of a job may have between them: the worst of them
take about a second for the 224 layers of an 8B model."""

_LONGEST_RUN: int = 12
"""What an open repetition counts for. A path has some 40 places, but the matcher tries those of a
single character many times as fast as the branches of a group."""

_PIECE = re.compile(
    r"(?P<single>(?:\\[^0-9A-Za-z]|\\[dDwWsSbB]|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\\[\](){}|*+?]))"
    r"(?:(?P<repeat>[*+?]|\{(?P<least>\d*)(?P<comma>,?)(?P<most>\d*)\})\??)?"
    r"|(?P<open>\((?:\?:)?)|(?P<close>\))|(?P<bar>\|)"
)


def require_simple(patterns: Iterable[str]) -> None:
    """Raise ValueError for a pattern that is no regular expression, or costly to match.

    Offered are characters, classes, `.`, groups with `|`, and repetitions of a single character.
    """
    ways = 0
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        ways += _ways(pattern)
    if ways > MOST_WAYS:
        raise ValueError(
            "the patterns can fit a layer in too many ways; use fewer '*', '+' and '|', or name "
            "the layers"
        )


def _ways(pattern: str) -> int:
    """Return a bound of the ways in which a valid expression can be tried at one place."""
    ways, position = 1, 0
    branches = [1]  # of each group, the whole first; a product bounds nested groups too
    inside = [0]
    while position < len(pattern):
        piece = _PIECE.match(pattern, position)
        if piece is None:
            raise ValueError(
                f"{pattern!r} is too involved at {pattern[position : position + 10]!r}: only a "
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
    """Return how many lengths the repetition of a single character can have."""
    if piece["repeat"] == "?":
        return 2
    if piece["repeat"] in "*+" or (not piece["most"] and piece["comma"]):
        return _LONGEST_RUN
    if not piece["comma"]:
        return 1
    return min(_LONGEST_RUN, int(piece["most"]) - int(piece["least"] or 0) + 1)
