"""Parses the tool calls of an answer, in the format of the model's chat template.

Four formats are supported: JSON objects with name and arguments, a name followed by an object, a
name followed by key-value pairs, and Python calls. All parsers work on coded text
(`core.batching.coded_tokens`). Plain Python.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from core.batching.call_literals import NAME, Frame, flexible
from core.batching.call_values import LooseReader, NotAValue, typed
from core.batching.forced_call import ForcedCall

_decoder = json.JSONDecoder()

Tools = Mapping[str, Any]
"""The JSON schemas of the offered tools' parameters, by tool name."""


@dataclass(frozen=True)
class ToolCall:
    """A function call; `arguments` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class ReadAnswer:
    """The parsed end of an answer, from where calls may begin."""

    calls: list[ToolCall]
    text: str
    """The text after the calls, or all of it if it has no calls."""


class ArgumentReader(Protocol):
    """Parses the arguments of one call."""

    def take(self, text: str, start: int, parameters: Any) -> tuple[str, int]:
        """Return the arguments as JSON text and their end. Raises NotAValue."""


@dataclass(frozen=True)
class JsonArguments:
    """One JSON object."""

    def take(self, text: str, start: int, parameters: Any) -> tuple[str, int]:
        value, end = _json_at(text, start)
        if not isinstance(value, dict):
            raise NotAValue
        return text[start:end], end


@dataclass(frozen=True)
class LooseArguments:
    """An object with bare names and template-specific quotes, or Python keyword arguments."""

    quotes: tuple[str, ...]
    escapes: bool
    is_python: bool = False

    def take(self, text: str, start: int, parameters: Any) -> tuple[str, int]:
        arguments, end = self._reader.arguments(text, start)
        return _json(arguments), end

    @cached_property
    def _reader(self) -> LooseReader:
        return LooseReader(self.quotes, self.escapes, is_python=self.is_python)


@dataclass(frozen=True)
class PairArguments:
    """`before key amid value after`, once for each argument."""

    before: str
    amid: str
    after: str
    tail: str
    """The literal after the last pair; a value ends where this or another pair follows."""

    def take(self, text: str, start: int, parameters: Any) -> tuple[str, int]:
        arguments: dict[str, Any] = {}
        properties = _mapping(_mapping(parameters).get("properties"))
        while opened := self._opening.match(text, start):
            closed = self._closing.search(text, opened.end())
            if closed is None:
                raise NotAValue
            key, value = opened["key"].strip(), text[opened.end() : closed.start()]
            arguments[key] = typed(value, properties.get(key, True), _mapping(parameters))
            start = closed.end()
        return _json(arguments), start

    @cached_property
    def _opening(self) -> re.Pattern[str]:
        key = r"(?P<key>[^\s<>]+?)"
        return re.compile(
            flexible(self.before) + key + flexible(self.amid.rstrip()) + _gap(self.amid)
        )

    @cached_property
    def _closing(self) -> re.Pattern[str]:
        leading = self.after[: len(self.after) - len(self.after.lstrip())]
        following = "|".join(
            flexible(each.strip()) for each in (self.before, self.tail) if each.strip()
        )
        return re.compile(
            f"(?:{re.escape(leading)})?" + flexible(self.after.strip()) + rf"\s*(?=$|{following})"
        )


def _gap(literal: str) -> str:
    """Return a pattern for the trailing white space of a literal, optional as a whole."""
    space = literal[len(literal.rstrip()) :]
    return f"(?:{re.escape(space)})?"


class ToolCallFormat(Protocol):
    """The format of the calls of an answer."""

    @property
    def frame(self) -> Frame: ...

    @property
    def forced(self) -> ForcedCall | None:
        """The literals of a forced call; None if no grammar can express the format."""

    def take(self, text: str, start: int, tools: Tools) -> tuple[list[ToolCall], int] | None:
        """Parse the calls at `start`, including head and tail; return them and their end."""


@dataclass(frozen=True)
class JsonCalls:
    """Calls as JSON objects, alone, in a list, or nested."""

    frame: Frame
    name_key: str
    arguments_key: str
    forced: ForcedCall | None = field(default=None, compare=False)

    def take(self, text: str, start: int, tools: Tools) -> tuple[list[ToolCall], int] | None:
        opened = self._head.match(text, start)
        try:
            value, end = _json_at(text, opened.end() if opened else start)
        except NotAValue:
            return None
        calls = list(self._calls(value))
        if not calls:
            return None
        closed = self._tail.match(text, end)
        return calls, closed.end() if closed else end

    def _calls(self, value: Any) -> Iterator[ToolCall]:
        waiting = [value]
        while waiting:
            each = waiting.pop()
            if isinstance(each, list):
                waiting.extend(reversed(each))
            elif isinstance(each, dict) and isinstance(each.get(self.name_key), str):
                arguments = each.get(self.arguments_key, {})
                is_text = isinstance(arguments, str)
                yield ToolCall(each[self.name_key], arguments if is_text else _json(arguments))
            elif isinstance(each, dict):
                waiting.extend(reversed(each.values()))

    @cached_property
    def _head(self) -> re.Pattern[str]:
        return re.compile(flexible(self.frame.head))

    @cached_property
    def _tail(self) -> re.Pattern[str]:
        return re.compile(r"\s*" + flexible(self.frame.tail.strip()))


@dataclass(frozen=True)
class NamedCalls:
    """Calls written as a name followed by arguments."""

    frame: Frame
    amid: str
    arguments: ArgumentReader
    forced: ForcedCall | None = field(default=None, compare=False)

    def take(self, text: str, start: int, tools: Tools) -> tuple[list[ToolCall], int] | None:
        opened = self._head.match(text, start)
        if opened is None:
            return None
        name = opened["name"]
        try:
            arguments, end = self.arguments.take(text, opened.end(), tools.get(name))
        except NotAValue:
            return None
        closed = self._tail.match(text, end)
        if closed is None and not self.frame.tail.strip().startswith(text[end:].strip()):
            return None
        return [ToolCall(name, arguments)], closed.end() if closed else len(text)

    @cached_property
    def _head(self) -> re.Pattern[str]:
        return re.compile(flexible(self.frame.head) + f"(?P<name>{NAME})" + flexible(self.amid))

    @cached_property
    def _tail(self) -> re.Pattern[str]:
        return re.compile(r"\s*" + flexible(self.frame.tail.strip()))


def read_calls(format_: ToolCallFormat, text: str, tools: Tools) -> ReadAnswer:
    """Parse the calls at the end of an answer; all of it is text if one call is malformed.

    Without a marker, the text must consist only of calls of offered tools. Values nested beyond
    Python's recursion limit are malformed.
    """
    try:
        return _read_calls(format_, text, tools)
    except (RecursionError, ValueError):
        return ReadAnswer([], text)


def _read_calls(format_: ToolCallFormat, text: str, tools: Tools) -> ReadAnswer:
    frame = format_.frame
    calls: list[ToolCall] = []
    end = _skipped(frame.opening, text, 0)
    while taken := format_.take(text, end, tools):
        calls += taken[0]
        end = _skipped(frame.between, text, taken[1])
    rest = text[_skipped(frame.closing, text, end) :]
    is_broken = frame.marker in rest if frame.marker else bool(rest.strip())
    if not frame.marker and tools and not all(call.name in tools for call in calls):
        is_broken = True
    if is_broken or not calls:
        return ReadAnswer([], text)
    return ReadAnswer(calls, rest if rest.strip() else "")


def _skipped(literal: str, text: str, start: int) -> int:
    """Return the position after an optional literal and white space."""
    found = re.compile(r"\s*" + flexible(literal.strip()) + r"\s*").match(text, start)
    if found is None:
        found = re.compile(r"\s*").match(text, start)
    return found.end() if found else start


def _json_at(text: str, start: int) -> tuple[Any, int]:
    try:
        return _decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        raise NotAValue from None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
