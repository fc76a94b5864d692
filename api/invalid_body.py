"""Turns pydantic's errors of a request into one error, with the path of the field and a hint."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, get_type_hints

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from core.errors import InvalidRequest
from core.spec.fields import fields_at
from core.spec.names import TWO_NAMES
from core.spec.nearest import did_you_mean

MAX_PARAM_CHARACTERS = 500
"""An unknown field may have a name of megabytes."""

_QUOTED = re.compile(r"'([^']*)'")

_JSON_TYPES = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    str: "a string",
    list: "a list",
    dict: "an object",
}
"""The JSON types of Python values, in messages."""

_NUMBER_ERRORS = {
    "int_type": "it must be an integer",
    "float_type": "it must be a number",
    "bool_type": "it must be true or false",
}


def from_validation(error: RequestValidationError, endpoint: object) -> InvalidRequest:
    """Return the error of the first invalid field, by its dotted path, with all reasons.

    If the field may be a name or a list, the path is that of the invalid item of the list. The
    body of `endpoint`, a route's function, has the names for the hint about an unknown field.
    """
    errors: Sequence[dict[str, Any]] = error.errors()
    first = errors[0]
    if first["type"] == "json_invalid":
        return InvalidRequest(
            f"The body is not valid JSON: {first['ctx']['error']} at character {first['loc'][-1]}.",
            code="invalid_json",
        )
    param = _dotted(first, error.body)
    if first["type"] == TWO_NAMES:
        return _from_two_names(first["ctx"], param)
    for each in errors:
        if (inside := _dotted(each, error.body)).startswith(f"{param}["):
            first, param = each, inside
            break
    if not param and first["type"] == "value_error":
        return InvalidRequest(f"The body is not valid: {_reason(first)}.", code="invalid_value")
    if not param:
        return InvalidRequest("The body must be a JSON object; send application/json.")
    if first["type"] == "missing":
        return InvalidRequest(
            f"Missing required parameter: {param!r}.",
            param=param,
            code="missing_required_parameter",
        )
    if first["type"] == "extra_forbidden":
        return _unknown_parameter(first, param, endpoint)
    same_field = [each for each in errors if _dotted(each, error.body) == param]
    reasons = "; or ".join(dict.fromkeys(_reason(each) for each in same_field))
    hint = next(filter(None, map(_meant_value, same_field)), "")
    return InvalidRequest(
        f"Invalid value for {param!r}: {reasons}.{hint}", param=param, code="invalid_value"
    )


def _unknown_parameter(error: dict[str, Any], param: str, endpoint: object) -> InvalidRequest:
    _, *inside, name = error["loc"]
    model = _body_model(endpoint) if callable(endpoint) else None
    known = [] if model is None else fields_at(model, inside)
    return InvalidRequest(
        f"Unknown parameter: {param!r}.{did_you_mean(str(name), known)}",
        param=param,
        code="unknown_parameter",
    )


@lru_cache
def _body_model(endpoint: Callable[..., Any]) -> type[BaseModel] | None:
    """Return the model of a route's body, from the parameters of its function."""
    for annotation in get_type_hints(endpoint).values():
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
    return None


def _meant_value(error: dict[str, Any]) -> str:
    """Return the hint about a text that resembles an allowed one."""
    facts = error.get("ctx", {})
    match error["type"]:
        case "literal_error":
            written, allowed = error["input"], facts["expected"]
        case "union_tag_invalid":
            written, allowed = facts["tag"], facts["expected_tags"]
        case _:
            return ""
    return did_you_mean(written, _QUOTED.findall(allowed)) if isinstance(written, str) else ""


def _from_two_names(names: dict[str, str], parent: str) -> InvalidRequest:
    """Return the error of two names for the same field of the object at `parent`."""
    first, other = (f"{parent}.{names[key]}".removeprefix(".") for key in ("first", "other"))
    return InvalidRequest(
        f"{first!r} and {other!r} name the same field and have different values. Use only one.",
        param=first,
        code="contradictory_parameters",
    )


def _reason(error: dict[str, Any]) -> str:
    if error["type"] in _NUMBER_ERRORS and type(error["input"]) in _JSON_TYPES:
        return f"{_NUMBER_ERRORS[error['type']]}, not {_JSON_TYPES[type(error['input'])]}"
    message: str = error["msg"].removeprefix("Value error, ").rstrip(".")
    return message[:1].lower() + message[1:]


def _dotted(error: dict[str, Any], body: object) -> str:
    """`method.supervised.hyperparameters.n_epochs`, `prompt[3]`."""
    source, *path = error["loc"]
    steps = _steps_in_body(path, body, error["type"]) if source == "body" else path
    dotted = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return dotted.removeprefix(".")[:MAX_PARAM_CHARACTERS]


def _steps_in_body(path: list[int | str], body: Any, kind: str) -> Iterator[int | str]:
    """Yield the part of pydantic's path that is in the body; the rest names members of unions."""
    value = body
    for step in path:
        if _holds(value, step):
            value = value[step]
            yield step
        elif kind == "missing" and step is path[-1]:
            yield step
    if kind == "union_tag_invalid":
        yield "type"  # the discriminator of such a union


def _holds(value: object, step: int | str) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value
