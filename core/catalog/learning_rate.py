"""The default learning rate for a base, a strategy, an objective and a number of steps.

Adam moves every weight by about the rate in each step, regardless of the size of its gradient. The
change of a layer's output depends on how many weights add up in it, and on their initial values:

- `full`: the `hidden` inputs of a matrix move it together, so the rate falls with the width. The
  power is measured, as is the constant: 0.78 and 5e-5 at a width of 2,000, over Llamas of 1B to
  70B (Schulman et al. 2025, "LoRA Without Regret", https://thinkingmachines.ai/blog/lora/).
- Low rank: B starts at 0, so early on W x moves by about scale · rank · rate · |A x|. With a scale
  of alpha / rank the rank drops out and alpha stays; with `use_rslora`, where the scale is
  alpha / √rank, √rank stays too. The same source measures the same power, and ten times the rate of
  `full`, at alpha 32. Our grids at widths of 256, 384 and 576 confirm both constants.
- `bottleneck`: the up projection starts at 0 too, and hidden / reduction_factor inner values add up
  in each of its outputs, so the rate falls with their number.
- `prefix` and `prompt`: their vectors start with entries of size 1, on bases of any width, and must
  move by more than that. A sum of n steps with varying signs grows with √n, so the rate falls
  with the root of the steps, and not with the width.
- `ia3`: its vectors start with entries of 1 and must move by a part of that, so the rate falls with
  the root of the steps too. It falls with the width as that of `full` does: the constant is between
  a rate measured at a width of 256 and a published one at 2,048.

Preferences move the model away from the reference during the whole run, and nothing in the data
limits that, so rate times steps is limited. From 320 steps on, the rate is a twentieth of that of
demonstrations, as in published recipes of thousands of steps.

A run of very few steps has to move as far: by the same root, its rate is higher.

The new head of a classifier is trained at the rate of the strategy, but at most that of LoRA.
The constants are in `strategies.py` and `objectives.py`; `bench.auto` compares the resulting rates
with grids.
"""

import math
from dataclasses import dataclass
from typing import Literal

from core.catalog.objectives import OBJECTIVES
from core.catalog.strategies import STRATEGIES, WIDTH
from core.errors import InvalidRequest
from core.spec.objective import ObjectiveSpec
from core.spec.strategy import LoraSpec, StrategySpec
from core.spec.training import HIGHEST_RATE

Auto = Literal["auto"]

MANY_STEPS = 100
"""The number of steps above which the rates of virtual tokens and of `ia3` fall."""

FEW_STEPS = 48
FEWEST_STEPS = 12
"""Between these numbers of steps, the rate of weights rises to twice the normal rate."""

LEAST_SHARE = 0.05
"""The minimum share of the demonstrations' rate for an objective that reduces it."""


@dataclass(frozen=True)
class LearningRate:
    """The peak rate of a run, and its multiple of the base's default."""

    peak: float
    multiplier: float


def base_learning_rate(
    strategy: StrategySpec, objective: ObjectiveSpec, hidden_size: int, steps: int
) -> float:
    """Return the rate for a multiplier of 1, with three digits."""
    rate = _of_strategy(strategy, hidden_size, steps) * _share(objective, steps)
    if OBJECTIVES[objective.type].trains_head:
        rate = min(rate, _of_strategy(LoraSpec(), hidden_size, steps))
    return _short(min(rate, HIGHEST_RATE), 3)


def _of_strategy(strategy: StrategySpec, hidden_size: int, steps: int) -> float:
    """Return the rate for demonstrations."""
    rule = STRATEGIES[strategy.type].rate
    rate = rule.rate / rule.effect(strategy, hidden_size)
    rate *= math.pow(WIDTH / hidden_size, rule.width_power)
    if rule.rises_in_few_steps:
        rate *= math.sqrt(FEW_STEPS / min(FEW_STEPS, max(steps, FEWEST_STEPS)))
    if rule.falls_in_many_steps:
        rate *= math.sqrt(MANY_STEPS / max(MANY_STEPS, steps))
    return rate


def _share(objective: ObjectiveSpec, steps: int) -> float:
    """Return the share of the demonstrations' rate that the objective uses for `steps` steps."""
    few = OBJECTIVES[objective.type].full_rate_steps
    return 1.0 if few is None else max(LEAST_SHARE, min(1.0, few / steps))


def settle(rate: float | Auto, multiplier: float | Auto, base: float) -> LearningRate:
    """Resolve both numbers with the base's default; a given rate is kept.

    InvalidRequest if the multiplier makes the rate too high.
    """
    if not isinstance(rate, str):
        return LearningRate(rate, _short(rate / base, 6))
    multiplier = 1.0 if isinstance(multiplier, str) else multiplier
    peak = _short(multiplier * base, 6)
    if peak > HIGHEST_RATE:
        raise InvalidRequest(
            f"A learning_rate_multiplier of {multiplier:g} makes the learning rate {peak:g}: the "
            f"default of this base and strategy is {base:g}, and the maximum is {HIGHEST_RATE:g}. "
            f"Use a multiplier of at most {HIGHEST_RATE / base:.3g}.",
            param="learning_rate_multiplier",
            code="invalid_value",
        )
    return LearningRate(peak, multiplier)


def _short(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
