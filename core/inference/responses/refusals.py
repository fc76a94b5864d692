"""Rejects what POST /v1/responses does not offer, and contradictions."""

import json
from collections.abc import Mapping

from core.errors import InvalidRequest
from core.inference.responses.schemas import AllowedTools, NamedTool, ResponseBody
from core.inference.schemas import TextFormat

_UNSUPPORTED: Mapping[str, str] = {
    "conversation": "Conversations are not stored. Use previous_response_id, or send all items in "
    "input.",
    "prompt": "Prompt templates are not stored. Send their text in instructions and input.",
    "context_management": "Compaction is not supported. Use truncation 'auto', or send fewer "
    "items.",
    "moderation": "Moderation is not supported; remove it.",
    "background_options": "background_options is not supported; remove it.",
    "image": "image is not supported; remove it.",
}
"""Fields that must be null, each with the message of its refusal."""


def check_response(body: ResponseBody) -> None:
    """Raise InvalidRequest for what cannot be served, or contradicts itself."""
    for name, message in _UNSUPPORTED.items():
        if getattr(body, name) is not None:
            raise InvalidRequest(message, param=name, code="unsupported_parameter")
    if body.text is not None and body.text.verbosity not in (None, "medium"):
        raise InvalidRequest(
            "text.verbosity is not supported; remove it.",
            param="text.verbosity",
            code="unsupported_parameter",
        )
    if body.background and body.store is False:
        raise InvalidRequest(
            "A background response is always stored. Remove store, or set it to true.",
            param="store",
            code="contradictory_parameters",
        )
    _check_schemas(body)
    _check_tool_choice(body)


def _check_schemas(body: ResponseBody) -> None:
    """Raise InvalidRequest for what is no JSON: half of a surrogate pair, or a NaN."""
    schemas = [tool.model_dump() for tool in body.tools or ()]
    try:
        json.dumps(
            [*schemas, body.format.model_dump()], allow_nan=False, ensure_ascii=False
        ).encode()
    except (ValueError, RecursionError):
        raise InvalidRequest(
            "A schema has text that is not valid Unicode, or a number that JSON does not have.",
            param="tools" if body.tools else "text.format",
            code="invalid_value",
        ) from None


def is_forced(body: ResponseBody) -> bool:
    """Return whether the answer must be a call."""
    match body.tool_choice:
        case AllowedTools(mode=mode):
            return mode == "required"
        case NamedTool():
            return True
        case _:
            return body.tool_choice == "required"


def _check_tool_choice(body: ResponseBody) -> None:
    match body.tool_choice:
        case AllowedTools(tools=tools):
            named = {tool.name for tool in tools}
        case NamedTool(name=name):
            named = {name}
        case _:
            named = set()
    names = {tool.name for tool in body.tools or ()}
    if named - names or (is_forced(body) and not names):
        raise InvalidRequest(
            "tool_choice names a tool that is not in tools "
            f"({', '.join(sorted(names)) or 'empty'}).",
            param="tool_choice",
            code="invalid_value",
        )
    if is_forced(body) and not isinstance(body.format, TextFormat):
        raise InvalidRequest(
            "tool_choice with a forced call and text.format exclude each other; use one.",
            param="tool_choice",
            code="contradictory_parameters",
        )
