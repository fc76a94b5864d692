"""Renders known answers with a chat template, to infer the format of its answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.batching.template import ChatTemplate, Unrenderable
from core.batching.turns import Turn, turn_of

QUESTION = {"role": "user", "content": "tunesmith asks"}
TEXT = "tunesmith answers"
REASONING = "tunesmith reasons"
NAMES = ("tunesmith_look", "tunesmith_stop")
KEYS = ("probe_city", "probe_days")

TOOLS: tuple[dict[str, Any], ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "A probe.",
            "parameters": {
                "type": "object",
                "properties": {
                    KEYS[0]: {"type": "string", "description": "A text."},
                    KEYS[1]: {"description": "Anything."},
                },
            },
        },
    }
    for name in NAMES
)
IDS = ("abcdefgh1", "abcdefgh2")
"""Nine letters and digits: some templates reject other ids."""

_NO_PARTS: Mapping[str, str] = {}

Call = tuple[str, dict[str, Any]]
"""Name and arguments."""


def answer_with(
    template: ChatTemplate,
    text: str,
    calls: Sequence[Call] = (),
    parts: Mapping[str, str] = _NO_PARTS,
) -> Turn | None:
    """Render an answer with text and calls; None if the template rejects it.

    `parts` are further keys of the message, such as `reasoning_content`. Calls are tried with tools
    and without, because some templates render calls but not tools.
    """
    message: dict[str, Any] = {"role": "assistant", "content": text, **parts}
    if calls:
        message["tool_calls"] = [
            _tool_call(id_, name, arguments)
            for id_, (name, arguments) in zip(IDS, calls, strict=False)
        ]
    for tools in (TOOLS, ()) if calls else ((),):
        try:
            return turn_of(template, (QUESTION, message), tools, 1)
        except Unrenderable:
            continue
    return None


def _tool_call(id_: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
