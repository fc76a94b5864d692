"""Figures of classifiers against values computed by hand."""

import pytest

from core.verdict.labels import by_label, confusion, is_right, macro_f1


def one(*names: str) -> list[tuple[str, ...]]:
    return [(name,) for name in names]


TRUTH = one("a", "a", "a", "b", "b", "c")
CHOSEN = one("a", "a", "b", "b", "c", "a")
"""a: precision 2/3, recall 2/3; b: 1/2, 1/2; c: 0, 0."""


def test_macro_f1_is_the_mean_of_the_labels() -> None:
    assert macro_f1(TRUTH, CHOSEN) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert macro_f1(TRUTH, TRUTH) == 1
    assert macro_f1([], []) == 0


def test_label_that_is_only_chosen_counts_as_missed() -> None:
    assert macro_f1(one("a", "a"), one("a", "z")) == pytest.approx((2 / 3 + 0) / 2)


def test_always_the_majority_is_worse_than_its_accuracy() -> None:
    truth = one("a", "a", "a", "b")
    assert macro_f1(truth, one(*"aaaa")) == pytest.approx((6 / 7 + 0) / 2)


def test_several_labels_per_text_count_one_by_one() -> None:
    truth = [("a", "b"), ("a",), ()]
    chosen = [("b", "a"), ("b",), ("a",)]
    assert [is_right(*pair) for pair in zip(truth, chosen, strict=True)] == [True, False, False]
    # a: 1 hit, 2 wanted, 2 given; b: 1 hit, 1 wanted, 2 given
    assert macro_f1(truth, chosen) == pytest.approx((2 / 4 + 2 / 3) / 2)


def test_confusion_has_a_row_for_each_true_label() -> None:
    matrix = confusion(TRUTH, CHOSEN)
    assert matrix is not None
    assert matrix.labels == ("a", "b", "c")
    assert matrix.counts == ((2, 1, 0), (0, 1, 1), (1, 0, 0))
    assert sum(map(sum, matrix.counts)) == len(TRUTH)


def test_there_is_no_matrix_of_several_labels_or_of_very_many() -> None:
    assert confusion([("a", "b")], [("a",)]) is None
    assert confusion([], []) is None
    many = one(*(f"label {number}" for number in range(60)))
    assert confusion(many, many) is None


def test_figures_by_label() -> None:
    a, b, c = by_label(TRUTH, CHOSEN)
    assert (a.label, a.precision, a.recall, a.rows) == ("a", 2 / 3, 2 / 3, 3)
    assert (b.precision, b.recall, b.f1, b.rows) == (0.5, 0.5, 0.5, 2)
    assert (c.precision, c.recall, c.f1, c.rows) == (0, 0, 0, 1)
