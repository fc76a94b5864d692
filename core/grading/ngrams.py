"""BLEU, GLEU and ROUGE: how many n-grams two texts share. All values are from 0 to 1."""

import math
from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

Words = Sequence[str]

MAX_ORDER = 4
"""Of BLEU and GLEU."""


def bleu(words: Words, reference: Words) -> float:
    """Return the BLEU of one sentence, as sacrebleu's `sentence_bleu` does for the same words.

    The orders that the text is too short for do not count (effective order), and an order without
    a match counts half as much as the one before (exponential smoothing), so that a short or partly
    right answer is not simply 0. Papineni et al. 2002, Chen and Cherry 2014.
    """
    logs: list[float] = []
    smoothing = 1.0
    any_match = False
    for order in range(1, min(MAX_ORDER, len(words)) + 1):
        ours = _ngrams(words, order)
        matches = (ours & _ngrams(reference, order)).total()
        any_match = any_match or matches > 0
        if not matches:
            smoothing *= 2
        logs.append(math.log((matches or 1 / smoothing) / ours.total()))
    if not any_match:
        return 0.0
    brevity = min(0.0, 1 - len(reference) / len(words))
    return math.exp(brevity + sum(logs) / len(logs))


def gleu(words: Words, reference: Words) -> float:
    """Return Google's BLEU: the smaller of precision and recall of all n-grams. Wu et al. 2016."""
    ours = _up_to(words, MAX_ORDER)
    theirs = _up_to(reference, MAX_ORDER)
    most = max(ours.total(), theirs.total())
    return (ours & theirs).total() / most if most else 0.0


def rouge_n(words: Words, reference: Words, order: int) -> float:
    """Return the F1 of the n-grams of one order. Lin 2004."""
    ours, theirs = _ngrams(words, order), _ngrams(reference, order)
    return _f1((ours & theirs).total(), ours.total(), theirs.total())


def rouge_l(words: Words, reference: Words) -> float:
    """Return the F1 of the longest common subsequence. Lin 2004."""
    numbers: dict[str, int] = {}
    ours, theirs = (
        [numbers.setdefault(word, len(numbers)) for word in each] for each in (words, reference)
    )
    return _f1(LCSseq.similarity(ours, theirs), len(ours), len(theirs))


def _ngrams(words: Words, order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def _up_to(words: Words, order: int) -> Counter[tuple[str, ...]]:
    return sum((_ngrams(words, each) for each in range(1, order + 1)), Counter())


def _f1(common: int, ours: int, theirs: int) -> float:
    return 2 * common / (ours + theirs) if ours and theirs else 0.0
