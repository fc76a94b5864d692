"""OpenAI's `method` in requests and in job objects."""

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from core.catalog.hyperparameters import (
    HYPERPARAMETERS,
    DpoHyperparameters,
    Hyperparameters,
    KtoHyperparameters,
    OrpoHyperparameters,
    ResolvedHyperparameters,
    SimpoHyperparameters,
    resolved_hyperparameters,
)
from core.catalog.objectives import OBJECTIVES
from core.errors import InvalidRequest
from core.spec.job import JobSpec
from core.spec.members import for_each
from core.spec.objective import MethodName

_METHODS: tuple[MethodName, ...] = get_args(MethodName)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SupervisedMethod(_Body):
    hyperparameters: Hyperparameters = Hyperparameters()


class DpoMethod(_Body):
    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class OrpoMethod(_Body):
    hyperparameters: OrpoHyperparameters = OrpoHyperparameters()


class SimpoMethod(_Body):
    hyperparameters: SimpoHyperparameters = SimpoHyperparameters()


class KtoMethod(_Body):
    hyperparameters: KtoHyperparameters = KtoHyperparameters()


class Method(_Body):
    """`reinforcement` is parsed, so that its rejection can name `method.type`."""

    type: MethodName | Literal["reinforcement"]
    supervised: SupervisedMethod | None = None
    dpo: DpoMethod | None = None
    orpo: OrpoMethod | None = None
    simpo: SimpoMethod | None = None
    kto: KtoMethod | None = None
    reinforcement: dict[str, Any] | None = None


def _is_absent(value: object) -> bool:
    return value is None


class ResolvedMethodBody(BaseModel):
    hyperparameters: ResolvedHyperparameters


class ResolvedMethod(BaseModel):
    """As in OpenAI's API, only the field of the method's type is set."""

    type: MethodName
    supervised: ResolvedMethodBody | None = Field(None, exclude_if=_is_absent)
    dpo: ResolvedMethodBody | None = Field(None, exclude_if=_is_absent)
    orpo: ResolvedMethodBody | None = Field(None, exclude_if=_is_absent)
    simpo: ResolvedMethodBody | None = Field(None, exclude_if=_is_absent)
    kto: ResolvedMethodBody | None = Field(None, exclude_if=_is_absent)


def _require_all_methods(body: type[BaseModel]) -> None:
    """Raise TypeError unless `body` has one field for each method."""
    for_each(MethodName, {name: 1 for name in body.model_fields.keys() - {"type", "reinforcement"}})


_require_all_methods(Method)
_require_all_methods(ResolvedMethod)


def asked_hyperparameters(method: Method | None, older: Hyperparameters | None) -> Hyperparameters:
    """Return the hyperparameters of `method`, or of the older field `hyperparameters`.

    InvalidRequest for an unsupported method, or if both fields contradict each other.
    """
    if method is None:
        return older or Hyperparameters()
    if method.type == "reinforcement":
        *most, last = map(repr, _METHODS)
        raise InvalidRequest(
            f"The method 'reinforcement' is not supported; use {', '.join(most)} or {last}.",
            param="method.type",
            code="unsupported_method",
        )
    if any(getattr(method, other) is not None for other in _METHODS if other != method.type):
        raise InvalidRequest(
            f"The method is {method.type!r}, so it cannot have hyperparameters of another method.",
            param="method",
            code="contradictory_parameters",
        )
    body = getattr(method, method.type)
    if body is None:
        return HYPERPARAMETERS[method.type](**(older or Hyperparameters()).model_dump())
    asked: Hyperparameters = body.hyperparameters
    if older is not None and older != asked:
        raise InvalidRequest(
            f"hyperparameters and method.{method.type}.hyperparameters contradict each other; use "
            "only the latter.",
            param="hyperparameters",
            code="contradictory_parameters",
        )
    return asked


def resolved_method(spec: JobSpec) -> ResolvedMethod:
    """Return the method of a job's object."""
    method = OBJECTIVES[spec.objective.type].method
    body = ResolvedMethodBody(hyperparameters=resolved_hyperparameters(spec))
    return ResolvedMethod.model_validate({"type": method, method: body})
