"""Expands a search space into the parameters of its trials."""

import itertools
import json
import math
import random
from collections.abc import Sequence
from typing import Any, assert_never

from core.errors import InvalidRequest
from core.spec.search import (
    MAX_TRIALS,
    GridSearch,
    ListSearch,
    Parameters,
    RandomSearch,
    Range,
    SearchSpec,
)
from core.sweeps.parameters import described

DRAWS_PER_TRIAL = 100
"""After this many draws without a new trial for each, the space is taken to have no more."""
DIGITS = 6
"""Of a drawn number."""


def trials_of(search: SearchSpec, seed: int) -> list[Parameters]:
    """Return the parameters of every trial, in order; `seed` is for random ones.

    InvalidRequest names a field of `search` if the trials are too many, too few or equal.
    """
    match search:
        case GridSearch():
            trials = _grid(search)
        case ListSearch():
            trials = _list(search)
        case RandomSearch():
            return _random(search, seed)
        case _:
            assert_never(search)
    if len(trials) < 2:
        raise _invalid("search.parameters", "The search has one trial; a sweep needs two or more.")
    first: dict[str, int] = {}
    for number, trial in enumerate(trials):
        if (earlier := first.setdefault(_key(trial), number)) != number:
            raise _invalid(
                "search.parameters",
                f"Trials {earlier} and {number} are equal: {described(trial)}. Remove one of them.",
            )
    return trials


def _grid(search: GridSearch) -> list[Parameters]:
    count = math.prod(len(values) for values in search.parameters.values())
    _require_few(count, "combinations")
    combinations = itertools.product(*search.parameters.values())
    return [dict(zip(search.parameters, each, strict=True)) for each in combinations]


def _list(search: ListSearch) -> list[Parameters]:
    lengths = {path: len(values) for path, values in search.parameters.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{path} {length}" for path, length in lengths.items())
        raise _invalid(
            "search.parameters",
            f"In a search of type list, all parameters need equally many values ({found}); use "
            "type grid for all combinations.",
        )
    rows = zip(*search.parameters.values(), strict=True)
    return [dict(zip(search.parameters, each, strict=True)) for each in rows]


def _random(search: RandomSearch, seed: int) -> list[Parameters]:
    draws = random.Random(seed)
    found: dict[str, Parameters] = {}
    for _ in range(DRAWS_PER_TRIAL * search.trials):
        trial = {path: _drawn(space, draws.random()) for path, space in search.parameters.items()}
        found.setdefault(_key(trial), trial)
        if len(found) == search.trials:
            return list(found.values())
    raise _invalid(
        "search.trials",
        f"The search has only {len(found)} different trials, not {search.trials}. Ask for fewer, "
        "or add values.",
    )


def _drawn(space: Sequence[Any] | Range, position: float) -> Any:
    """Return the value at `position`, from 0 up to but not including 1.

    Only `Random.random` is used: its numbers are the same in every version of Python.
    """
    if not isinstance(space, Range):
        return space[int(position * len(space))]
    low, high = space.min, space.max
    is_whole = isinstance(low, int) and isinstance(high, int)
    if is_whole and not space.log:
        return int(low) + int(position * (int(high) - int(low) + 1))
    if space.log:
        value = math.exp(math.log(low) + position * (math.log(high) - math.log(low)))
    else:
        value = low + position * (high - low)
    value = round(value) if is_whole else float(f"{value:.{DIGITS}g}")
    return min(max(value, low), high)


def _require_few(count: int, what: str) -> None:
    if count > MAX_TRIALS:
        raise _invalid(
            "search.parameters",
            f"The search has {count} {what}; a sweep has at most {MAX_TRIALS} trials. Use fewer "
            "values, or type random.",
        )


def _key(parameters: Parameters) -> str:
    return json.dumps(parameters, sort_keys=True)


def _invalid(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="invalid_value")
