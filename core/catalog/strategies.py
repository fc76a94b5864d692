"""What differs between strategies and is plain fact: one row for each.

`docs/decisions/0022-auto-learning-rate.md` has the table that the learning rates come from.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from core.spec.members import for_each
from core.spec.strategy import BottleneckSpec, LowRankSpec, StrategySpec
from core.spec.training import Optimiser

Library = Literal["transformers", "peft", "tunesmith"]
Side = Literal["source", "target"]
BOTH_SIDES: tuple[Side, ...] = ("source", "target")

WIDTH = 2000
"""The hidden size for which the learning rates stand: a base of about 1B."""

Effect = Callable[[Any, int], float]
"""From the spec and the hidden size to how many times as far a rate moves the base, compared with
the usual options at `WIDTH`."""


def _same_effect(strategy: Any, hidden_size: int) -> float:
    return 1.0


@dataclass(frozen=True)
class RateRule:
    """The learning rate for demonstrations; `learning_rate.py` has the reasons."""

    rate: float
    """At `WIDTH`, with the usual options."""
    width_power: float
    """It falls with this power of the width."""
    rises_in_few_steps: bool
    falls_in_many_steps: bool
    effect: Effect = _same_effect
    """What options do, by which the rate is divided."""


@dataclass(frozen=True)
class StrategyFacts:
    """One strategy."""

    rate: RateRule
    library: Library
    """What loads the bundle."""
    optimiser: Optimiser
    """What `auto` is."""
    whole_model: bool
    """The result is a model of its own and no adapter."""
    virtual_tokens: Side | None
    """Before which text of an encoder-decoder there are any; a decoder has one text only."""
    hands_over_keys: bool
    """The model is given keys and values from outside."""
    not_mergeable: str | None
    """Why what was trained cannot become weights of the base; None where it can."""
    copies_weights: bool
    """An engine copies all weights of an adapter, so its layers can take those of the next one."""


_POWER = 0.78

_LOW_RANK_ALPHA = 32


def _strength(strategy: LowRankSpec, hidden_size: int) -> float:
    """Return scale · rank, which is how far the update goes for the rate."""
    root = math.sqrt(strategy.rank) if strategy.use_rslora else 1
    return strategy.alpha * root / _LOW_RANK_ALPHA


_LOW_RANK_RATE = RateRule(5e-4, _POWER, True, False, _strength)


def _inner_values(strategy: BottleneckSpec, hidden_size: int) -> float:
    """Return the inner width as a multiple of that at `WIDTH` with the usual factor."""
    usual = WIDTH / BottleneckSpec().reduction_factor
    return hidden_size / strategy.reduction_factor / usual


STRATEGIES: dict[str, StrategyFacts] = for_each(
    StrategySpec,
    {
        "full": StrategyFacts(
            rate=RateRule(5e-5, _POWER, True, False),
            library="transformers",
            optimiser="adamw",
            whole_model=True,
            virtual_tokens=None,
            hands_over_keys=False,
            not_mergeable=None,
            copies_weights=False,
        ),
        "lora": StrategyFacts(
            rate=_LOW_RANK_RATE,
            library="peft",
            optimiser="adamw",
            whole_model=False,
            virtual_tokens=None,
            hands_over_keys=False,
            not_mergeable=None,
            copies_weights=True,
        ),
        "qlora": StrategyFacts(
            rate=_LOW_RANK_RATE,
            library="peft",
            optimiser="paged_adamw",
            whole_model=False,
            virtual_tokens=None,
            hands_over_keys=False,
            not_mergeable=None,
            copies_weights=True,
        ),
        "bottleneck": StrategyFacts(
            rate=RateRule(1e-3, 0, True, False, _inner_values),
            library="tunesmith",
            optimiser="adamw",
            whole_model=False,
            virtual_tokens=None,
            hands_over_keys=False,
            not_mergeable="puts layers of its own between those of the base",
            copies_weights=False,
        ),
        "prefix": StrategyFacts(
            rate=RateRule(0.2, 0, False, True),
            library="peft",
            optimiser="adamw",
            whole_model=False,
            virtual_tokens="target",
            hands_over_keys=True,
            not_mergeable="puts keys and values before every text",
            copies_weights=False,
        ),
        "prompt": StrategyFacts(
            rate=RateRule(0.3, 0, False, True),
            library="peft",
            optimiser="adamw",
            whole_model=False,
            virtual_tokens="source",
            hands_over_keys=False,
            not_mergeable="puts embeddings before every text",
            copies_weights=False,
        ),
        # 0.1 on our base of width 256 in 75 steps; published are 3e-3 at 2,048 in 1,000 steps
        "ia3": StrategyFacts(
            rate=RateRule(2e-2, _POWER, False, True),
            library="peft",
            optimiser="adamw",
            whole_model=False,
            virtual_tokens=None,
            hands_over_keys=False,
            not_mergeable=None,
            copies_weights=True,
        ),
    },
)


def virtual_tokens(strategy: StrategySpec, sides: Collection[Side] = BOTH_SIDES) -> int:
    """Return how many positions of the context the strategy takes from a text.

    `sides` says which texts of an encoder-decoder are meant.
    """
    if STRATEGIES[strategy.type].virtual_tokens not in sides:
        return 0
    tokens: int = strategy.virtual_tokens  # type: ignore[union-attr]
    return tokens
