"""The known names that an unknown name may be a misspelling of."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

_LONGEST_NAME = 128
_MOST_NAMES = 1000
"""Bounds of the cost, which grows with both."""


def nearest(name: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the most similar known names, the best first; `cutoff` is a share from 0 to 1."""
    return get_close_matches(name[:_LONGEST_NAME], [*islice(known, _MOST_NAMES)], most, cutoff)


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return " Did you mean 'x'?" for the end of a message; "" if no known name is similar."""
    names = nearest(name, known, cutoff=cutoff)
    return f" Did you mean {names[0]!r}?" if names else ""
