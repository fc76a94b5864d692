"""Telling a misspelt key from one that is merely not ours.

A typo changes what is trained in silence: `wieght: 0` would leave the message in the loss. So a key
is taken for misspelt, and is a fault, when the object lacks a known key that differs from it only
in case and separators, or by one letter that is missing, added, wrong or has changed places with
its neighbour. Every other unknown key is a column of somebody else's, which is passed over.
"""

import re
from collections.abc import Container, Iterable
from functools import lru_cache

_LONGEST_NAME = 40
_SHORTEST_NAME = 4  # one letter of "id" or "tag" is too much of it
_SEPARATORS = re.compile(r"[_\W]+")


def meant_by(name: str, known: Iterable[str], present: Container[str]) -> str | None:
    """Return the known key that `name` misspells; one that is `present` is not meant."""
    if len(name) > _LONGEST_NAME:
        return None
    return next((key for key in known if key not in present and _misspells(name, key)), None)


@lru_cache(maxsize=4096)
def _misspells(name: str, key: str) -> bool:
    bare, bare_key = (_SEPARATORS.sub("", word).lower() for word in (name, key))
    return bare == bare_key or (len(key) >= _SHORTEST_NAME and _one_slip(bare, bare_key))


def _one_slip(name: str, key: str) -> bool:
    """Say whether one letter was left out, added, replaced, or swapped with the next."""
    if abs(len(name) - len(key)) > 1:
        return False
    start = 0
    while start < min(len(name), len(key)) and name[start] == key[start]:
        start += 1
    one, other = name[start:], key[start:]
    return (
        one[1:] == other[1:]
        or one[1:] == other
        or one == other[1:]
        or (one[:2] == other[1::-1] and one[2:] == other[2:])
    )
