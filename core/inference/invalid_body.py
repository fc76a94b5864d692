"""Turns pydantic's errors of a body into one error, with the path of the field."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from core.errors import InvalidRequest
from core.spec.names import TWO_NAMES

MAX_PARAM_CHARACTERS = 500
"""An unknown field may have a name of megabytes."""

_MESSAGE_BY_KIND = {
    "missing": ("missing_required_parameter", "Missing required parameter: {param!r}."),
    "extra_forbidden": ("unknown_parameter", "Unknown parameter: {param!r}."),
}


def invalid_body(errors: Sequence[Any], body: object) -> InvalidRequest:
    """Return the error of the first invalid field, by its dotted path, with all reasons.

    `errors` are those of pydantic, whose paths begin with `body`. If the field may be a name or
    a list, the path is that of the invalid item of the list.
    """
    first = errors[0]
    if first["type"] == "json_invalid":
        return InvalidRequest(
            f"The body is not valid JSON: {first['ctx']['error']} at character {first['loc'][-1]}.",
            code="invalid_json",
        )
    param = _dotted(first, body)
    if first["type"] == TWO_NAMES:
        return _from_two_names(first["ctx"], param)
    for each in errors:
        if (inside := _dotted(each, body)).startswith(f"{param}["):
            first, param = each, inside
            break
    if not param and first["type"] == "value_error":
        return InvalidRequest(f"The body is not valid: {_reason(first)}.", code="invalid_value")
    if not param:
        return InvalidRequest("The body must be a JSON object; send application/json.")
    if first["type"] in _MESSAGE_BY_KIND:
        code, template = _MESSAGE_BY_KIND[first["type"]]
        return InvalidRequest(template.format(param=param), param=param, code=code)
    same_field = (each for each in errors if _dotted(each, body) == param)
    reasons = "; or ".join(dict.fromkeys(_reason(each) for each in same_field))
    return InvalidRequest(
        f"Invalid value for {param!r}: {reasons}.", param=param, code="invalid_value"
    )


def invalid_object(error: ValidationError, body: object) -> InvalidRequest:
    """Return the error of a body that was validated outside FastAPI."""
    errors = error.errors(include_url=False)
    return invalid_body([{**each, "loc": ("body", *each["loc"])} for each in errors], body)


def _from_two_names(names: dict[str, str], parent: str) -> InvalidRequest:
    """Return the error of two names for the same field of the object at `parent`."""
    first, other = (f"{parent}.{names[key]}".removeprefix(".") for key in ("first", "other"))
    return InvalidRequest(
        f"{first!r} and {other!r} name the same field and have different values. Use only one.",
        param=first,
        code="contradictory_parameters",
    )


def _reason(error: dict[str, Any]) -> str:
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
