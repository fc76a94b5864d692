"""The conversations with which a chat template is measured: every text is a known word."""

from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]

SYSTEM, TEXT, NAME = "systemQz", "beforeQz", "nameQz"
USERS, ANSWERS = ("userQzA", "userQzB", "userQzC"), ("answerQzA", "answerQzB")
ARGUMENTS = {"placeQz": "valueQz", "timeQz": "hourQz"}
IDS = ("idQz1aaaa", "idQz2aaaa")
"""Nine letters and digits, which every template accepts."""
RESULTS = ('one"Qz', 'two"Qz')
"""With a quotation mark, which JSON escapes."""


def system() -> Message:
    return {"role": "system", "content": SYSTEM}


def user(n: int) -> Message:
    return {"role": "user", "content": USERS[n]}


def answer(n: int) -> Message:
    return {"role": "assistant", "content": ANSWERS[n]}


def called(count: int, text: str = "") -> Message:
    function = {"name": NAME, "arguments": ARGUMENTS}
    calls = [{"id": id_, "type": "function", "function": function} for id_ in IDS[:count]]
    return {"role": "assistant", "content": text, "tool_calls": calls}


def told(n: int) -> Message:
    return {"role": "tool", "content": RESULTS[n], "tool_call_id": IDS[n]}


def tool(name: str) -> Message:
    properties = {"placeQz": {"type": "string", "description": "aQz"}}
    parameters = {"type": "object", "properties": properties, "required": ["placeQz"]}
    function = {"name": name, "description": "whatQz", "parameters": parameters}
    return {"type": "function", "function": function}
