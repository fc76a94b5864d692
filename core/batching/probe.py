"""Lets a chat template write answers that are known, to learn how it writes any."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.batching.call_literals import common_start
from core.batching.template import ChatTemplate, Unrenderable
from core.datasets.formats import ChatExample

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
_BLOCK = re.compile(r"<(\w+)>\s*</\1>\s*$")
_TAG = re.compile(r"<[^<>\n]*>\s*$")
"""What a prompt may end with and past answers may be shown without: reasoning, empty or begun."""

IDS = ("abcdefgh1", "abcdefgh2")
"""Nine letters and digits: a few templates refuse ids of any other form."""

_NO_PARTS: Mapping[str, str] = {}

Call = tuple[str, dict[str, Any]]
"""Name and arguments."""


@dataclass(frozen=True)
class Turn:
    """One answer: what the model reads before it, and what it has to write."""

    prompt: str
    answer: str


def probe_turn(
    template: ChatTemplate,
    messages: Sequence[dict[str, Any]],
    tools: tuple[dict[str, Any], ...] = (),
) -> Turn:
    """Return the last message, the assistant's, as the model has to write it.

    Raises Unrenderable.
    """
    prompt = template.prompt(messages[:-1], tools)
    # No turn of weight 0 is looked for, so that nothing is refused for its place in the text.
    unweighted = tuple({**message, "weight": 0} for message in messages)
    try:
        whole, _ = template.conversation(ChatExample(unweighted, tools))
    except Unrenderable:
        whole, _ = template.conversation(ChatExample(tuple(messages), tools))
    for start in (prompt, _BLOCK.sub("", prompt), _TAG.sub("", prompt)):
        if whole.startswith(start):
            return Turn(start, whole[len(start) :])
    start = common_start(prompt, whole)
    return Turn(start, whole[len(start) :])


def answer_with(
    template: ChatTemplate,
    text: str,
    calls: Sequence[Call] = (),
    parts: Mapping[str, str] = _NO_PARTS,
) -> Turn | None:
    """Return an answer of text and calls as the template writes it; None when it refuses.

    `parts` are further keys of the message, such as `reasoning_content`. Templates differ in how
    they want arguments, and in what stands for no text beside calls.
    """
    for arguments_of in (dict, json.dumps) if calls else (dict,):
        for content in (text, None) if calls and not text else (text,):
            message: dict[str, Any] = {"role": "assistant", "content": content, **parts}
            if calls:
                message["tool_calls"] = [
                    _tool_call(id_, name, arguments_of(arguments))
                    for id_, (name, arguments) in zip(IDS, calls, strict=False)
                ]
            try:
                turn = probe_turn(template, (QUESTION, message), TOOLS if calls else ())
            except Unrenderable:
                continue
            if all(name in turn.answer for name, _ in calls):
                return turn
    return None


def _tool_call(id_: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
