"""Sweeps: many trials of one job, of which the best is kept.

A trial is a job with other values for some of its fields, the *parameters*. A rung is a share of
the run after which the trials are compared, and the worse ones end (successive halving, Jamieson
and Talwalkar 2016, https://arxiv.org/abs/1502.07943).
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, model_validator

from core.spec.base import Spec
from core.spec.numbers import Integer, Number
from core.spec.search import MAX_TRIALS, SearchSpec


class SweepStatus(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FIGURES = ("loss", "accuracy")
"""The metrics of held-out rows that the training process measures."""
Metric = Annotated[
    str,
    Field(
        min_length=1,
        max_length=255,
        description="loss or accuracy on held-out rows, or the name of a grader of the job, by "
        "whose mean score for the answers to held-out rows trials are compared",
    ),
]


class HalvingSpec(Spec):
    """After `first_share` of the run, the best 1 / `reduction` of the trials continue, and again
    each time the share has grown by the factor `growth`, until one more than `finalists` is left.
    The finalists continue after `last_share`, and are trained to their end.

    Without a `last_share`, the trials are reduced to the finalists in the same way. Decision 39 has
    the measurements behind the defaults.
    """

    metric: Metric = "loss"
    reduction: Integer = Field(2, ge=2, le=16)
    first_share: Number = Field(0.065, ge=0.001, lt=1)
    growth: Number = Field(1.5, ge=1.05, le=16)
    last_share: Number | None = Field(0.33, ge=0.001, lt=1)
    finalists: Integer = Field(2, ge=1, le=MAX_TRIALS)

    @model_validator(mode="after")
    def _require_an_order(self) -> "HalvingSpec":
        if self.last_share is not None and self.first_share >= self.last_share:
            raise ValueError(
                f"first_share ({self.first_share:g}) must be less than last_share "
                f"({self.last_share:g}); set last_share to null for rungs by growth alone"
            )
        return self


class Rung(Spec):
    """A share of the run, the number of trials that train until it, and that continue from it."""

    share: float
    trials: int
    keep: int


class SweepSpec(Spec):
    """The resolved request, stored with the sweep."""

    job: dict[str, Any] = Field(description="the body of the job as it was asked for")
    search: SearchSpec
    halving: HalvingSpec | None = Field(description="None: every trial is trained to its end")
    rungs: tuple[Rung, ...] = Field(description="before the end of the run")

    @property
    def metric(self) -> Metric:
        return "loss" if self.halving is None else self.halving.metric
