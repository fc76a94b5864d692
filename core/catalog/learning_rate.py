"""The learning rate that suits a base, a strategy, an objective and a number of steps."""

from dataclasses import dataclass
from typing import Literal

from core.errors import InvalidRequest
from core.spec.members import for_each
from core.spec.objective import ObjectiveSpec
from core.spec.strategy import LowRankSpec, StrategySpec
from core.spec.training import HIGHEST_RATE

Auto = Literal["auto"]


@dataclass(frozen=True)
class LearningRate:
    """The highest rate of a run, and how many times the base's own it is."""

    peak: float
    multiplier: float


def base_learning_rate(
    strategy: StrategySpec, objective: ObjectiveSpec, hidden_size: int, steps: int
) -> float:
    raise NotImplementedError


def settle(rate: float | Auto, multiplier: float | Auto, base: float) -> LearningRate:
    """Return both numbers, now that the base's rate is known; a rate that is given stands.

    InvalidRequest when the multiplier makes it more than a rate may be.
    """
    if not isinstance(rate, str):
        return LearningRate(rate, _short(rate / base, 6))
    multiplier = 1.0 if isinstance(multiplier, str) else multiplier
    peak = _short(multiplier * base, 6)
    if peak > HIGHEST_RATE:
        raise InvalidRequest(
            f"A learning_rate_multiplier of {multiplier:g} makes a learning rate of {peak:g}, for "
            f"this base and strategy stand for {base:g}. It should be at most "
            f"{_short(HIGHEST_RATE / base, 3):g}.",
            param="learning_rate_multiplier",
            code="invalid_value",
        )
    return LearningRate(peak, multiplier)


def _short(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
