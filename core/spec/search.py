"""Search spaces: the values that the trials of a sweep have for fields of their job."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from core.spec.base import Spec
from core.spec.numbers import Flag, Integer, Number

MAX_TRIALS = 64
MAX_PARAMETERS = 16
MAX_VALUES = 64
"""Of one parameter."""
LARGEST = 1e300
"""Of the ends of a range, so that their difference is finite."""

SWEPT_FIELDS = ("model", "strategy", "training", "method", "hyperparameters")
"""The fields of a job in which trials may differ. All others, such as the files, the seed and the
held-out rows, are equal, so that the held-out losses can be compared."""


def _swept(path: str) -> str:
    first, *rest = path.split(".")
    if first not in SWEPT_FIELDS or not all(rest):
        raise ValueError(
            f"trials may differ in {', '.join(SWEPT_FIELDS)} and the fields inside them, such as "
            "training.learning_rate"
        )
    return path


ParameterPath = Annotated[str, Field(max_length=200), AfterValidator(_swept)]
"""The path of a field in the body of a job: `training.learning_rate`."""


def _finite(values: list[Any]) -> list[Any]:
    try:
        json.dumps(values, allow_nan=False)
    except ValueError:
        raise ValueError("numbers must be finite") from None
    return values


Values = Annotated[list[Any], Field(min_length=1, max_length=MAX_VALUES), AfterValidator(_finite)]

Parameters = dict[str, Any]
"""The values of one trial, by path."""


class Range(Spec):
    """Numbers to draw from, evenly, or with `log` evenly over their logarithms.

    Two integers give integers.
    """

    min: Integer | Number = Field(ge=-LARGEST, le=LARGEST)
    max: Integer | Number = Field(ge=-LARGEST, le=LARGEST)
    log: Flag = False

    @model_validator(mode="after")
    def _require_order(self) -> "Range":
        if not self.min < self.max:
            raise ValueError("min must be less than max")
        if self.log and self.min <= 0:
            raise ValueError("with log, min must be above 0")
        return self


class GridSearch(Spec):
    """Every combination of the values; the last parameter changes fastest."""

    type: Literal["grid"]
    parameters: dict[ParameterPath, Values] = Field(min_length=1, max_length=MAX_PARAMETERS)


class ListSearch(Spec):
    """One trial for the first values of all parameters, one for the second, and so on."""

    type: Literal["list"]
    parameters: dict[ParameterPath, Values] = Field(min_length=1, max_length=MAX_PARAMETERS)


class RandomSearch(Spec):
    """Different random combinations, the same for a seed."""

    type: Literal["random"]
    parameters: dict[ParameterPath, Values | Range] = Field(min_length=1, max_length=MAX_PARAMETERS)
    trials: Integer = Field(ge=2, le=MAX_TRIALS)
    seed: Integer | None = Field(None, ge=0, le=2**31 - 1, description="None: a random one")


SearchSpec = Annotated[GridSearch | ListSearch | RandomSearch, Field(discriminator="type")]
