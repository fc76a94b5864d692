"""Tool calls in what a model wrote, in the way in which its chat template writes them.

Four ways are known: JSON objects that hold name and arguments, a name and then its arguments as one
object, a name and then a pair of texts for each argument, and calls of Python. All work on coded
text (`core.batching.coded_tokens`). Plain Python.
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
"""The parameters of the tools that were offered, a JSON schema each, by name."""


@dataclass(frozen=True)
class ToolCall:
    """A call of a function; the arguments are JSON."""

    name: str
    arguments: str


@dataclass(frozen=True)
class ReadAnswer:
    """The end of an answer, from where its calls may begin."""

    calls: list[ToolCall]
    text: str
    """What stands after the calls; everything, where there are none."""


class ArgumentReader(Protocol):
    """Reads the arguments of one call."""

    def take(self, text: str, start: int, parameters: Any) -> tuple[str, int]:
        """Return the arguments as JSON and where they end; NotAValue when none are there."""


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
    """One object with bare names and quotes of the template's own, or what Python calls with."""

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
    """`before key amid value after`, once for each argument; none of it for no arguments."""

    before: str
    amid: str
    after: str
    tail: str
    """What may follow the last of them; a value ends where this or another pair follows."""

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
    """Return a pattern for the white space that a literal ends with, or none of it."""
    space = literal[len(literal.rstrip()) :]
    return f"(?:{re.escape(space)})?"


class ToolCallFormat(Protocol):
    """How the calls of an answer are written."""

    @property
    def frame(self) -> Frame: ...

    @property
    def forced(self) -> ForcedCall | None:
        """How to make a model write one; None where no grammar can."""

    def take(self, text: str, start: int, tools: Tools) -> tuple[list[ToolCall], int] | None:
        """Return the calls that begin at a place, head and tail included; None for none."""


@dataclass(frozen=True)
class JsonCalls:
    """Calls as JSON objects, alone, in a list, or deeper in others."""

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
    """A name, and then its arguments."""

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
    """Return the calls in the rest of an answer; all of it is text when one of them is broken.

    Where no marker begins calls, the rest has to be calls of offered tools and nothing else.
    Values that are nested deeper than Python follows are broken too.
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
    """Return the place after a literal, if it stands there, and after white space."""
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
