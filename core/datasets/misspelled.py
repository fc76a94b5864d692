"""Distinguishes misspelled keys, which are errors, from unknown keys, which are ignored.

A typo would silently change the training: `wieght: 0` would leave the message in the loss. A key is
misspelled if the object lacks a known key that differs from it only in case and separators, or by
one letter that is missing, added, wrong or swapped with its neighbor. Every other unknown key
belongs to another tool and is ignored.
"""

import re
from collections.abc import Container, Iterable
from functools import lru_cache

_LONGEST_NAME = 40
_SHORTEST_NAME = 4  # in "id" or "tag", one different letter makes another word
_SEPARATORS = re.compile(r"[_\W]+")


def intended_key(name: str, known: Iterable[str], present: Container[str]) -> str | None:
    """Return the known key that `name` misspells, if any; a key in `present` is not a candidate."""
    if len(name) > _LONGEST_NAME:
        return None
    return next((key for key in known if key not in present and _misspells(name, key)), None)


@lru_cache(maxsize=4096)
def _misspells(name: str, key: str) -> bool:
    bare, bare_key = (_SEPARATORS.sub("", word).lower() for word in (name, key))
    return bare == bare_key or (len(key) >= _SHORTEST_NAME and _one_slip(bare, bare_key))


def _one_slip(name: str, key: str) -> bool:
    """Whether one letter was left out, added, replaced, or swapped with the next."""
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
