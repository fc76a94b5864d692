import pytest

from core.artifacts.metrics import StepMetrics
from core.evaluation.best import best_step, is_out_of_patience


def curve(*losses):
    return [StepMetrics(step, 1.0, 0.5, loss) for step, loss in enumerate(losses, start=1)]


def test_best_step_has_the_lowest_held_out_loss_and_is_the_first_of_equal_ones():
    assert best_step(curve(None, 3.0, None, 1.5, 1.5, 2.0)).step == 4
    assert best_step(curve(None, None)) is None


@pytest.mark.parametrize(
    ("losses", "patience", "out"),
    [
        ((3.0, 2.0, 2.1), 1, True),
        ((3.0, 2.0, 2.1), 2, False),
        ((3.0, 2.0, None, 2.0, None, 2.1), 2, True),
        ((3.0, 2.0, 2.1, 1.9), 1, False),
        ((3.0, 4.0, 5.0), None, False),
        ((3.0, 4.0, None), 1, False),
        ((None, None), 1, False),
        ((), 1, False),
        ((2.0,), 1, False),
    ],
)
def test_patience_ends_after_so_many_evaluations_without_a_better_one(losses, patience, out):
    assert is_out_of_patience(curve(*losses), patience) is out
