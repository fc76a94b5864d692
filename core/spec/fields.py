"""The fields that a pydantic model knows at a path of one of its errors."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo


def fields_at(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Return the names that fields of the object at `path` may have in a body.

    A path has the names of fields, the indexes of lists, the keys of mappings, and the tags or the
    class names of the members of unions.
    """
    models = [model]
    for step in path:
        inner = [
            each
            for owner in models
            for name, field in owner.model_fields.items()
            if str(step) in _names(name, field)
            for each in _models_in(field.annotation)
        ]
        models = inner or [each for each in models if str(step) in _tags(each)] or models
    found = (
        name
        for each in models
        for own, field in each.model_fields.items()
        for name in _names(own, field)
    )
    return list(dict.fromkeys(found))


def _names(name: str, field: FieldInfo) -> list[str]:
    """Return the names of a field in a body."""
    match field.validation_alias:
        case AliasChoices(choices=choices):
            return [choice for choice in choices if isinstance(choice, str)]
        case str() as alias:
            return [alias]
        case _:
            return [name]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in a type such as `Annotated[A | list[B], …] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _tags(model: type[BaseModel]) -> list[str]:
    """Return the names of a model as a member of a union."""
    kind = model.model_fields.get("type")
    return [model.__name__, *(get_args(kind.annotation) if kind is not None else ())]
