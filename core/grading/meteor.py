"""METEOR without synonyms: words match if they are equal, or if their stems are.

The third stage of METEOR looks up synonyms in WordNet, a data set that this service does not have.
Parameters and alignment are those of NLTK's `meteor_score` (Lavie and Agarwal 2007).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import cast

ALPHA = 0.9
BETA = 3.0
GAMMA = 0.5


def meteor(words: Sequence[str], reference: Sequence[str]) -> float:
    """Return the score of words in lower case, from 0 to 1."""
    pairs = sorted(_aligned(words, reference))
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(words), len(pairs) / len(reference)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    pieces = 1 + sum(after != (before[0] + 1, before[1] + 1) for before, after in pairwise(pairs))
    return mean * (1 - GAMMA * math.pow(pieces / len(pairs), BETA))


def _aligned(words: Sequence[str], reference: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the positions of matching words: equal ones first, then those of one stem.

    Each stage goes from the end to the beginning and takes the last free match, as NLTK does.
    """
    rest, rest_of_reference = dict(enumerate(words)), dict(enumerate(reference))
    for key in (str, _stemmer()):
        free: dict[str, list[int]] = {}
        for position in sorted(rest_of_reference):
            free.setdefault(key(rest_of_reference[position]), []).append(position)
        for position in sorted(rest, reverse=True):
            if matches := free.get(key(rest[position])):
                found = matches.pop()
                del rest[position], rest_of_reference[found]
                yield position, found


def _stemmer() -> Callable[[str], str]:
    """Return an English stemmer of Snowball, which only one thread may use.

    Its import is late: few requests need it.
    """
    import snowballstemmer

    return cast(Callable[[str], str], snowballstemmer.stemmer("english").stemWord)
