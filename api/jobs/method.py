"""OpenAI's `method`: what a request says in it, and how a job shows it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.jobs.hyperparameters import (
    DpoHyperparameters,
    Hyperparameters,
    ResolvedHyperparameters,
    resolved_hyperparameters,
)
from core.errors import InvalidRequest
from core.spec.job import JobSpec
from core.spec.members import for_each
from core.spec.objective import ObjectiveSpec


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SupervisedMethod(_Body):
    hyperparameters: Hyperparameters = Hyperparameters()


class DpoMethod(_Body):
    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class Method(_Body):
    """`reinforcement` is read, so that the refusal can name `method.type`."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: SupervisedMethod | None = None
    dpo: DpoMethod | None = None
    reinforcement: dict[str, Any] | None = None


def _is_absent(value: object) -> bool:
    return value is None


class ResolvedMethodBody(BaseModel):
    hyperparameters: ResolvedHyperparameters


class ResolvedMethod(BaseModel):
    """As in OpenAI's API, only the named one is there."""

    type: Literal["supervised", "dpo"]
    supervised: ResolvedMethodBody | None = Field(None, exclude_if=_is_absent)
    dpo: ResolvedMethodBody | None = Field(None, exclude_if=_is_absent)


def asked_hyperparameters(
    method: Method | None, older: Hyperparameters | None
) -> Hyperparameters | DpoHyperparameters:
    """Return those of `method`, or those of the older field `hyperparameters` beside it.

    InvalidRequest for a method that is not offered, and when the two say different things.
    """
    if method is None:
        return older or Hyperparameters()
    if method.type == "reinforcement":
        raise InvalidRequest(
            "The method 'reinforcement' is not offered; use 'supervised' or 'dpo'.",
            param="method.type",
            code="unsupported_method",
        )
    other = method.supervised if method.type == "dpo" else method.dpo
    if other is not None:
        raise InvalidRequest(
            f"The method is {method.type!r}, so it cannot have the hyperparameters of another one.",
            param="method",
            code="contradictory_parameters",
        )
    body = method.dpo if method.type == "dpo" else method.supervised
    if body is None:
        asked = (older or Hyperparameters()).model_dump()
        return DpoHyperparameters(**asked) if method.type == "dpo" else Hyperparameters(**asked)
    if older is not None and older != body.hyperparameters:
        raise InvalidRequest(
            f"hyperparameters and method.{method.type}.hyperparameters say different things; use "
            "the latter.",
            param="hyperparameters",
            code="contradictory_parameters",
        )
    return body.hyperparameters


def resolved_method(spec: JobSpec) -> ResolvedMethod:
    """Return what the job shows, in OpenAI's words."""
    body = ResolvedMethodBody(hyperparameters=resolved_hyperparameters(spec))
    match _METHODS[spec.objective.type]:
        case "dpo":
            return ResolvedMethod(type="dpo", dpo=body)
        case "supervised":
            return ResolvedMethod(type="supervised", supervised=body)


_METHODS: dict[str, Literal["supervised", "dpo"]] = for_each(
    ObjectiveSpec,
    {
        "supervised": "supervised",
        "pretraining": "supervised",
        "dpo": "dpo",
        "classification": "supervised",
    },
)
