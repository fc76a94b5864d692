"""Sweeps: many trials of one job, of which the best is kept.

A trial is a job with other values for some of its fields, the *parameters*. A rung is a share of
the run after which the trials are compared, and the worse ones end (successive halving, Jamieson
and Talwalkar 2016, https://arxiv.org/abs/1502.07943).
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

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
    each time the share has grown by the factor `growth`, until `finalists` of them are left. These
    are trained to their end.

    Decision 39 has the measurements behind the defaults.
    """

    metric: Metric = "loss"
    reduction: Integer = Field(3, ge=2, le=16)
    first_share: Number = Field(0.125, ge=0.001, lt=1)
    growth: Number = Field(3.0, ge=1.05, le=16)
    finalists: Integer = Field(1, ge=1, le=MAX_TRIALS)


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
