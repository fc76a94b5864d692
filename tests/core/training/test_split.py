import pytest

from core.batching.rows import PairRow, Row, SourceTargetRow
from core.training.split import duplicates_of, hold_out


def row(line, *tokens):
    return Row(line, tokens, (False,) + (True,) * (len(tokens) - 1))


def test_rows_of_every_kind_are_equal_whatever_their_lines():
    pairs = [PairRow(n, row(n, 1, 2), row(n, 1, answer)) for n, answer in ((1, 3), (2, 4), (3, 3))]
    assert duplicates_of(pairs) == {2: 3}
    texts = [SourceTargetRow(n, (1, 2), target) for n, target in ((1, (3,)), (2, (3,)), (5, (4,)))]
    assert duplicates_of(texts) == {1: 2}
    other_mask = Row(2, (1, 2, 3), (False, False, True))
    assert duplicates_of([row(1, 1, 2, 3), other_mask]) == {}


@pytest.mark.parametrize("seed", range(6))
def test_pieces_of_one_line_and_all_that_equals_them_stay_together(seed):
    """Line 1 and line 2 share a piece, line 2 and line 3 another."""
    chained = [row(1, 1, 2), row(1, 3, 4), row(2, 5, 6), row(2, 3, 4), row(3, 7, 8), row(3, 5, 6)]
    rows = [*chained, row(4, 9, 9), row(5, 8, 8)]
    trained, held = hold_out(rows, 0.1, seed)
    sides = {row.line in {held_row.line for held_row in held} for row in chained}
    assert len(sides) == 1
    assert len(trained) + len(held) == len(rows)
