"""Other forms in which clients send a tool choice or a response format.

Each function returns the usual form of a value that it knows, and any other value unchanged.
"""

from typing import Any


def usual_choice(value: Any) -> Any:
    """Return a tool choice; older clients send a function without `type` or without nesting.

    `{"name": …}`, `{"type": "function", "name": …}` and `{"function": {"name": …}}` are the same.
    """
    match value:
        case {"name": name, **rest} if rest in ({}, {"type": "function"}):
            return {"type": "function", "function": {"name": name}}
        case {"function": dict() as function, **rest} if not rest:
            return {"type": "function", "function": function}
        case _:
            return value


def usual_format(value: Any) -> Any:
    """Return a response format; other clients put a schema under `value` or `schema`.

    huggingface_hub sends `{"type": "json", "value": schema}`, also as `json_object`, and OpenAI's
    object as the value of `json_schema`; llama.cpp and Together put `schema` beside `json_object`.
    A regular expression is the `value` of huggingface_hub and the `pattern` of Together.
    """
    match value:
        case {"type": "json_object" | "json", "value": schema, **rest} if not rest:
            return _of_schema(schema)
        case {"type": "json_object", "schema": schema, **rest} if not rest:
            return _of_schema(schema)
        case {"type": "json_schema", "value": named, **rest} if not rest:
            return {"type": "json_schema", "json_schema": named}
        case {"type": "regex", "value": pattern, **rest} if not rest:
            return {"type": "regex", "pattern": pattern}
        case _:
            return value


def _of_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "schema", "schema": schema}}
