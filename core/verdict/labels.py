"""Figures of classifiers: accuracy, macro-F1 and the confusion matrix."""

from collections import Counter
from collections.abc import Sequence

from core.spec.verdict import Confusion, LabelFigures

Labels = tuple[str, ...]
"""Of one text: one label, or with several labels per text any number."""

MOST_SHOWN = 50
"""Labels of a confusion matrix; beyond that, `by_label` has the figures."""


def macro_f1(truth: Sequence[Labels], chosen: Sequence[Labels]) -> float:
    """Return the mean F1 over the labels that occur in either; 0 for a label never hit.

    As scikit-learn's `f1_score(average="macro", zero_division=0)`.
    """
    hits, wanted, given = _counts(truth, chosen)
    names = wanted.keys() | given.keys()
    if not names:
        return 0.0
    return sum(2 * hits[name] / (wanted[name] + given[name]) for name in names) / len(names)


def is_right(truth: Labels, chosen: Labels) -> bool:
    return set(truth) == set(chosen)


def by_label(truth: Sequence[Labels], chosen: Sequence[Labels]) -> tuple[LabelFigures, ...]:
    """Return precision, recall and F1 of every label that occurs, sorted."""
    hits, wanted, given = _counts(truth, chosen)
    return tuple(
        LabelFigures(
            label=name,
            precision=hits[name] / given[name] if given[name] else 0.0,
            recall=hits[name] / wanted[name] if wanted[name] else 0.0,
            f1=2 * hits[name] / (wanted[name] + given[name]),
            rows=wanted[name],
        )
        for name in sorted(wanted.keys() | given.keys())
    )


def confusion(truth: Sequence[Labels], chosen: Sequence[Labels]) -> Confusion | None:
    """Return the matrix; None for texts with several labels, or for very many labels."""
    pairs = list(zip(truth, chosen, strict=True))
    if not pairs or any(len(each) != 1 for pair in pairs for each in pair):
        return None
    names = sorted({each[0] for pair in pairs for each in pair})
    if len(names) > MOST_SHOWN:
        return None
    counts = Counter((one[0], other[0]) for one, other in pairs)
    return Confusion(
        labels=tuple(names),
        counts=tuple(tuple(counts[row, column] for column in names) for row in names),
    )


def _counts(
    truth: Sequence[Labels], chosen: Sequence[Labels]
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Return by label: how often it is right, is there, is chosen."""
    hits: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    given: Counter[str] = Counter()
    for one, other in zip(truth, chosen, strict=True):
        hits.update(set(one) & set(other))
        wanted.update(set(one))
        given.update(set(other))
    return hits, wanted, given
