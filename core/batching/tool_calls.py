"""Tool calls in what a model wrote, in the way in which its chat template writes them.

Plain Python. Only calls that are JSON objects are read.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

_OPENING = " \t\r\n[{,"
_CLOSING = " \t\r\n]},"
_decoder = json.JSONDecoder()


@dataclass(frozen=True)
class ToolCall:
    """A call of a function; the arguments are JSON."""

    name: str
    arguments: str


@dataclass(frozen=True)
class ToolCallFormat:
    """What stands around a call, and what its name and arguments are called."""

    before: str
    """The text of a turn before its first call, exactly."""
    after: str
    """What closes the call, without the end of the turn."""
    name_key: str
    arguments_key: str
    wrapped: Literal["", "list", "deeper"]
    """What the object with these two stands in."""

    @property
    def marker(self) -> str:
        """What no other text begins with; empty when a call is nothing but JSON."""
        return self.before.lstrip().rstrip(_OPENING)

    @property
    def around(self) -> str:
        """The literals on both sides of a call."""
        return f"{self.before}\n{self.after}"

    def read(self, text: str) -> list[ToolCall]:
        """Return the calls in the rest of an answer; none when it holds anything but calls."""
        calls = list(self._calls(_json_values(text)))
        rest = _without_json(text)
        for literal in (self.marker, self.after.lstrip(_CLOSING).rstrip()):
            rest = rest.replace(literal, "") if literal else rest
        return [] if rest.strip(_OPENING + _CLOSING) else calls

    def _calls(self, values: Iterator[Any]) -> Iterator[ToolCall]:
        for value in values:
            if isinstance(value, list):
                yield from self._calls(iter(value))
            elif isinstance(value, dict) and isinstance(value.get(self.name_key), str):
                arguments = value.get(self.arguments_key, {})
                is_text = isinstance(arguments, str)
                yield ToolCall(value[self.name_key], arguments if is_text else _json(arguments))
            elif isinstance(value, dict):
                yield from self._calls(iter(value.values()))


class ToolCallReader:
    """Parts an answer, as it comes, into text and calls."""

    def __init__(self, format_: ToolCallFormat) -> None:
        self._format = format_
        self._held = ""
        self._is_calling = False

    def push(self, text: str) -> str:
        """Take some text of the answer; return what is certainly no call."""
        self._held += text
        marker = self._format.marker
        if self._is_calling:
            return ""
        if not marker:
            start = self._held.lstrip()
            if not start or start.startswith(("[", "{")):
                return ""
            return self._give(len(self._held))
        found = self._held.find(marker)
        if found >= 0:
            self._is_calling = True
            return self._give(found)
        kept = next(
            (size for size in range(len(marker) - 1, 0, -1) if self._held.endswith(marker[:size])),
            0,
        )
        return self._give(len(self._held) - kept)

    def finish(self) -> tuple[str, list[ToolCall]]:
        """Return the rest of the answer: text, or calls."""
        calls = self._format.read(self._held) if self._held.strip() else []
        return ("" if calls else self._held), calls

    def _give(self, length: int) -> str:
        given, self._held = self._held[:length], self._held[length:]
        return given


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json_values(text: str) -> Iterator[Any]:
    for start, end in _json_spans(text):
        yield json.loads(text[start:end])


def _without_json(text: str) -> str:
    parts, last = [], 0
    for start, end in _json_spans(text):
        parts.append(text[last:start])
        last = end
    return "".join([*parts, text[last:]])


def _json_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where objects and lists stand in a text, one after another."""
    position = 0
    while position < len(text):
        if text[position] in "[{":
            try:
                _, end = _decoder.raw_decode(text, position)
            except ValueError:
                position += 1
                continue
            yield position, end
            position = end
        else:
            position += 1
