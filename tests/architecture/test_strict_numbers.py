"""No request body converts a value to a number or a boolean: `true` and `"1"` are no integers."""

from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel

from api.app import V1_ROUTERS

CONVERTED = ("int", "float", "bool")


def body_models() -> list[type[BaseModel]]:
    """The models of the bodies of all routes under /v1."""
    return [
        annotation
        for router in V1_ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for name, annotation in get_type_hints(route.endpoint).items()
        if name == "body" and isinstance(annotation, type) and issubclass(annotation, BaseModel)
    ]


def lax_values(schema: Any, path: str = "") -> Iterator[str]:
    """The paths in a core schema of values that pydantic converts."""
    if isinstance(schema, list | tuple):
        for each in schema:
            yield from lax_values(each, path)
    if not isinstance(schema, dict):
        return
    if schema.get("type") in CONVERTED and "enum" not in schema and not schema.get("strict"):
        yield f"{path}: {schema['type']}"
    for key, value in schema.items():
        if key not in ("metadata", "serialization", "default"):
            yield from lax_values(value, f"{path}.{key}" if isinstance(value, dict) else path)


@pytest.mark.parametrize("model", sorted(set(body_models()), key=lambda model: model.__name__))
def test_every_number_and_flag_of_a_body_is_strict(model: type[BaseModel]) -> None:
    assert not list(lax_values(model.__pydantic_core_schema__))


def test_all_bodies_are_found_and_a_lax_number_would_be_too() -> None:
    names = {model.__name__ for model in body_models()}
    assert names >= {"ChatBody", "CompletionBody", "CreateJob", "ClassificationBody", "ServingBody"}

    class Lax(BaseModel):
        counts: dict[str, list[int | None]] | None = None

    assert list(lax_values(Lax.__pydantic_core_schema__))
