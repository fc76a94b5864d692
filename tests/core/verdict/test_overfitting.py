"""What synthetic curves are called."""

import math
import random

import pytest

from core.spec.held_out import CurvePoint
from core.verdict.overfitting import RISE, overfitting_of


def curve(train: list[float], held_out: list[float]) -> list[CurvePoint]:
    return [
        CurvePoint(step=10 * number, train_loss=one, held_out_loss=other)
        for number, (one, other) in enumerate(zip(train, held_out, strict=True), 1)
    ]


FALLING = [3.0, 2.0, 1.4, 1.0, 0.7]


def test_losses_that_part_are_overfitting() -> None:
    found = overfitting_of(curve(FALLING, [2.5, 2.0, 1.8, 1.9, 2.2]))
    assert (found.status, found.best_step, found.last_step) == ("overfitted", 30, 50)
    assert found.rise == pytest.approx(2.2 / 1.8 - 1)
    assert "lowest at step 30 (1.8) and 2.2 at step 50" in found.reason
    assert "fell (from 1.4 to 0.7)" in found.reason


def test_both_losses_falling_is_none() -> None:
    assert overfitting_of(curve(FALLING, [2.5, 2.0, 1.8, 1.7, 1.65])).status == "none"


@pytest.mark.parametrize(("factor", "status"), [(0.9, "none"), (1.1, "overfitted")])
def test_rise_has_to_exceed_the_threshold(factor: float, status: str) -> None:
    last = 1.8 * (1 + factor * RISE)
    assert overfitting_of(curve(FALLING, [2.5, 2.0, 1.8, 1.81, last])).status == status


def test_rise_that_ends_below_the_threshold_is_none() -> None:
    assert overfitting_of(curve(FALLING, [2.5, 1.8, 2.4, 2.0, 1.79])).status == "none"


def test_both_losses_rising_is_divergence() -> None:
    found = overfitting_of(curve([3.0, 2.0, 2.5, 3.5], [2.5, 2.0, 2.6, 3.9]))
    assert found.status == "diverged"
    assert found.reason.endswith("Lower the learning rate.")


@pytest.mark.parametrize("points", [0, 1])
def test_single_evaluation_says_nothing(points: int) -> None:
    found = overfitting_of(curve(FALLING, FALLING)[:points])
    assert found.status == "unknown" and found.best_step is None
    assert "evaluation.every_steps" in found.reason


def test_loss_of_zero_does_not_divide() -> None:
    assert overfitting_of(curve([1.0, 0.5], [0.0, 0.1])).status == "none"


def test_noisy_learning_is_none_and_noisy_overfitting_is_found() -> None:
    draw = random.Random(3)
    steps = range(1, 41)

    def noisy(values: list[float]) -> list[float]:
        return [value * (1 + draw.gauss(0, 0.003)) for value in values]

    for _ in range(50):
        train = noisy([1 + 2 * math.exp(-step / 8) for step in steps])
        learned = noisy([1.5 + math.exp(-step / 8) for step in steps])
        assert overfitting_of(curve(train, learned)).status == "none"
        parted = noisy([1.5 + math.exp(-step / 8) + (step / 60) ** 2 for step in steps])
        assert overfitting_of(curve(train, parted)).status == "overfitted"
