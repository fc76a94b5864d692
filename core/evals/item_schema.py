"""What the items of an eval's runs look like: its data source config, as OpenAI shows it."""

from collections.abc import Mapping
from typing import Any

_MESSAGE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "role": {"type": "string", "enum": ["assistant"]},
        "content": {"type": ["string", "array", "null"]},
        "refusal": {"type": ["string", "null"]},
        "tool_calls": {"type": ["array", "null"], "items": {"type": "object"}},
    },
    "required": ["role"],
}

SAMPLE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "choices": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer"},
                    "message": _MESSAGE,
                    "finish_reason": {"type": "string"},
                },
                "required": ["index", "message", "finish_reason"],
            },
        },
        "output_text": {"type": "string"},
        "output_json": {"type": ["object", "array", "string", "number", "boolean", "null"]},
        "output_tools": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["output_text"],
}
"""Of the namespace `sample`."""


def shown_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a data source config with the schema of the rows, from the requested one."""
    if config["type"] == "custom":
        properties = {"item": config["item_schema"]}
        if config.get("include_sample_schema"):
            properties["sample"] = SAMPLE_SCHEMA
        return {"type": "custom", "schema": _rows(properties)}
    schema = _rows({"item": {"type": "object"}, "sample": SAMPLE_SCHEMA})
    return {"type": config["type"], "metadata": config.get("metadata"), "schema": schema}


def _rows(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
