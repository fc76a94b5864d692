"""The facts of each strategy, one row for each.

`docs/decisions/0022-auto-learning-rate.md` has the measurements behind the learning rates.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from core.spec.members import for_each
from core.spec.strategy import BottleneckSpec, LowRankSpec, StrategySpec
from core.spec.training import OptimizerName

Library = Literal["transformers", "peft", "tunesmith"]
Side = Literal["source", "target"]
BOTH_SIDES: tuple[Side, ...] = ("source", "target")

WIDTH = 2000
"""The hidden size that the learning rates are given for, that of a base of about 1B."""

Effect = Callable[[Any, int], float]
"""Maps a spec and a hidden size to how much further a rate moves the base than with the default
options at `WIDTH`."""


def _same_effect(strategy: Any, hidden_size: int) -> float:
    return 1.0


@dataclass(frozen=True)
class RateRule:
    """The learning rate for demonstrations; `learning_rate.py` has the reasons."""

    rate: float
    """At `WIDTH`, with the default options."""
    width_power: float
    """The rate decreases with this power of the width."""
    rises_in_few_steps: bool
    falls_in_many_steps: bool
    effect: Effect = _same_effect
    """The effect of the options; the rate is divided by it."""


@dataclass(frozen=True)
class StrategyFacts:
    """One strategy."""

    rate: RateRule
    library: Library
    """The library that loads the bundle."""
    optimizer: OptimizerName
    """The value of `auto`."""
    full_model: bool
    """The result is a complete model, not an adapter."""
    virtual_tokens: Side | None
    """The text of an encoder-decoder that they precede; a decoder has only one text."""
    hands_over_keys: bool
    """The model receives external keys and values."""
    not_mergeable: str | None
    """Why the adapter cannot be merged into the base; None if it can."""
    copies_weights: bool
    """The engine copies all weights of an adapter, so its layers can load the next adapter."""


_POWER = 0.78

_LOW_RANK_ALPHA = 32


def _strength(strategy: LowRankSpec, hidden_size: int) -> float:
    """Return scale · rank relative to the default: how far a rate moves the update."""
    root = math.sqrt(strategy.rank) if strategy.use_rslora else 1
    return strategy.alpha * root / _LOW_RANK_ALPHA


_LOW_RANK_RATE = RateRule(5e-4, _POWER, True, False, _strength)


def _inner_values(strategy: BottleneckSpec, hidden_size: int) -> float:
    """Return the inner width relative to that at `WIDTH` with the default factor."""
    usual = WIDTH / BottleneckSpec().reduction_factor
    return hidden_size / strategy.reduction_factor / usual


STRATEGIES: dict[str, StrategyFacts] = for_each(
    StrategySpec,
    {
        "full": StrategyFacts(
            rate=RateRule(5e-5, _POWER, True, False),
            library="transformers",
            optimizer="adamw",
            full_model=True,
            virtual_tokens=None,
            hands_over_keys=False,
            not_mergeable=None,
            copies_weights=False,
        ),
        "lora": StrategyFacts(
            rate=_LOW_RANK_RATE,
            library="peft",
            optimizer="adamw",
            full_model=False,
            virtual_tokens=None,
            hands_over_keys=False,
            not_mergeable=None,
            copies_weights=True,
        ),
        "qlora": StrategyFacts(
            rate=_LOW_RANK_RATE,
            library="peft",
            optimizer="paged_adamw",
            full_model=False,
            virtual_tokens=None,
            hands_over_keys=False,
            not_mergeable=None,
            copies_weights=True,
        ),
        "bottleneck": StrategyFacts(
            rate=RateRule(1e-3, 0, True, False, _inner_values),
            library="tunesmith",
            optimizer="adamw",
            full_model=False,
            virtual_tokens=None,
            hands_over_keys=False,
            not_mergeable="adds layers between those of the base",
            copies_weights=False,
        ),
        "prefix": StrategyFacts(
            rate=RateRule(0.2, 0, False, True),
            library="peft",
            optimizer="adamw",
            full_model=False,
            virtual_tokens="target",
            hands_over_keys=True,
            not_mergeable="adds keys and values before every text",
            copies_weights=False,
        ),
        "prompt": StrategyFacts(
            rate=RateRule(0.3, 0, False, True),
            library="peft",
            optimizer="adamw",
            full_model=False,
            virtual_tokens="source",
            hands_over_keys=False,
            not_mergeable="adds embeddings before every text",
            copies_weights=False,
        ),
        # measured: 0.1 at width 256 in 75 steps; published: 3e-3 at width 2,048 in 1,000 steps
        "ia3": StrategyFacts(
            rate=RateRule(2e-2, _POWER, False, True),
            library="peft",
            optimizer="adamw",
            full_model=False,
            virtual_tokens=None,
            hands_over_keys=False,
            not_mergeable=None,
            copies_weights=True,
        ),
    },
)


def virtual_tokens(strategy: StrategySpec, sides: Collection[Side] = BOTH_SIDES) -> int:
    """Return how many positions of the context the strategy's virtual tokens take.

    `sides` selects the texts of an encoder-decoder.
    """
    if STRATEGIES[strategy.type].virtual_tokens not in sides:
        return 0
    tokens: int = strategy.virtual_tokens  # type: ignore[union-attr]
    return tokens


def fully_trained_modules(strategy: StrategySpec) -> tuple[str, ...]:
    """Return the names of the base's modules that the strategy trains completely."""
    names: tuple[str, ...] = getattr(strategy, "modules_to_save", ())
    return names
