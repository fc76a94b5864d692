"""Splits a streamed answer into reasoning, text and tool calls.

Text is emitted as soon as it cannot be the start of a marker. Plain Python; the text is coded
(`core.batching.coded_tokens`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from core.batching.coded_tokens import without_codes
from core.batching.tool_calls import ToolCall, Tools, read_calls
from core.batching.turn_format import TurnFormat

_State = Literal["between", "reasoning", "content", "calls"]
"""The part that an answer is in; `between` is before the first part and after a closed part."""


@dataclass(frozen=True)
class Part:
    """A parsed piece of an answer."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.reasoning or self.calls)


class _Markers:
    """The literals to search for, each with the state after it."""

    def __init__(self, state_after: dict[str, _State]) -> None:
        self._state_after = {literal: state for literal, state in state_after.items() if literal}
        self._longest_first = sorted(self._state_after, key=len, reverse=True)
        self._first_letters = {literal[0] for literal in self._state_after}

    def first(self, text: str) -> tuple[int, int, _State] | None:
        """Return start, end and state of the first marker, the longest if several start there."""
        found = [
            (start, -len(literal), literal)
            for literal in self._longest_first
            if (start := text.find(literal)) >= 0
        ]
        if not found:
            return None
        start, length, literal = min(found)
        return start, start - length, self._state_after[literal]

    def unfinished(self, text: str) -> int:
        """Return the start of the first partial marker at the end of the text, or its length."""
        for start, letter in enumerate(text):
            if letter in self._first_letters:
                rest = text[start:]
                if any(
                    len(literal) > len(rest) and literal.startswith(rest)
                    for literal in self._longest_first
                ):
                    return start
        return len(text)


class TurnMarkers:
    """The markers of a format by state, shared by all answers."""

    def __init__(self, format_: TurnFormat) -> None:
        calls = format_.calls
        call = "" if calls is None else calls.frame.marker
        text = format_.content
        reasoning = format_.reasoning
        to_calls: dict[str, _State] = {
            literal: "calls" for literal in (call, format_.before_calls + call) if call
        }
        to_parts: dict[str, _State] = dict(to_calls)
        if reasoning is not None:
            to_parts[reasoning.opening.strip()] = "reasoning"
        to_parts[text.opening.strip()] = "content"
        self.is_bare = calls is not None and not call
        """Whether calls have no marker and begin like JSON or a list."""
        self.between = _Markers(to_parts)
        self.content = _Markers(
            _closings([text.closing]) | (to_calls if not text.opening.strip() else {})
        )
        self.reasoning = _Markers(_closings([reasoning.closing] if reasoning else []))


def _closings(literals: Iterable[str]) -> dict[str, _State]:
    """Return the literals that close a part, with and without leading white space."""
    return {
        literal: "between"
        for closing in literals
        for literal in (closing.rstrip(), closing.strip())
        if literal
    }


class TurnReader:
    """Parses one answer incrementally."""

    def __init__(
        self,
        format_: TurnFormat,
        markers: TurnMarkers,
        tools: Tools,
        *,
        begins_in_reasoning: bool = False,
    ) -> None:
        self._format = format_
        self._markers = markers
        self._tools = tools
        self._held = ""
        self._calls: list[str] = []
        self._state: _State = "reasoning" if begins_in_reasoning else "between"
        self._drops_newlines = begins_in_reasoning
        self._is_first = not begins_in_reasoning

    @property
    def is_reasoning(self) -> bool:
        return self._state == "reasoning"

    def push(self, text: str) -> Part:
        """Add text of the answer; return what can be emitted."""
        if self._state == "calls":
            self._calls.append(text)
            return Part()
        self._held += text
        given: list[tuple[_State, str]] = []
        while self._advance(given):
            pass
        return self._part(given)

    def finish(self) -> Part:
        """Return the rest of the answer."""
        if self._state != "calls":
            state: _State = "content" if self._state == "between" else self._state
            given: list[tuple[_State, str]] = []
            self._give(given, state, len(self._held))
            return self._part(given)
        assert self._format.calls is not None
        read = read_calls(self._format.calls, "".join(self._calls), self._tools)
        if not read.calls:
            return Part(text=self._format.control.decoded(read.text))
        rest = read.text.removeprefix(self._format.content.opening)
        return Part(text=without_codes(rest).strip(), calls=tuple(map(self._decoded, read.calls)))

    def _decoded(self, call: ToolCall) -> ToolCall:
        """Return a call with valid characters, and with its control tokens as text."""
        control = self._format.control
        name = control.decoded(call.name).encode("utf-8", errors="replace").decode("utf-8")
        return ToolCall(name, control.decoded_in_json(call.arguments))

    def _advance(self, given: list[tuple[_State, str]]) -> bool:
        """Emit text up to the next marker; return whether a marker changed the state."""
        if self._state == "between":
            return self._begin(given)
        markers = self._markers.content if self._state == "content" else self._markers.reasoning
        found = markers.first(self._held)
        unfinished = markers.unfinished(self._held)
        if found is None or unfinished < found[0]:
            self._give(given, self._state, unfinished)
            return False
        start, end, state = found
        self._give(given, self._state, start)
        if state == "calls":
            self._call()
            return False
        self._held = self._held[end - start :]
        self._enter(state)
        return True

    def _begin(self, given: list[tuple[_State, str]]) -> bool:
        """Determine which part begins; text without a marker is content."""
        rest = self._held.lstrip()
        if not rest:
            return False
        found = self._markers.between.first(rest)
        if found is not None and found[0] == 0 and not self._may_be_longer(rest, found[1]):
            _, end, state = found
            if state == "calls":
                self._call()
                return False
            self._held = rest[end:]
            self._enter(state)
            return True
        if self._markers.between.unfinished(rest) == 0:
            return False
        if self._markers.is_bare and rest[0] in "[{":
            self._call()
            return False
        self._state = "content"
        if self._is_first and not self._format.content.opening.strip():
            self._held = self._held.removeprefix(self._format.content.opening)
        self._drops_newlines = not self._is_first
        self._is_first = False
        return True

    def _may_be_longer(self, rest: str, length: int) -> bool:
        return len(rest) >= length and self._markers.between.unfinished(rest) == 0

    def _enter(self, state: _State) -> None:
        self._state = state
        self._drops_newlines = True
        self._is_first = False

    def _call(self) -> None:
        self._state = "calls"
        self._calls.append(self._held)
        self._held = ""

    def _give(self, given: list[tuple[_State, str]], state: _State, length: int) -> None:
        text, self._held = self._held[:length], self._held[length:]
        if self._drops_newlines:
            text = text.lstrip("\r\n")
            self._drops_newlines = not text
        if text:
            given.append((state, text))

    def _part(self, given: list[tuple[_State, str]]) -> Part:
        if not given:
            return Part()
        content = "".join(text for state, text in given if state != "reasoning")
        reasoning = "".join(text for state, text in given if state == "reasoning")
        return Part(without_codes(content), without_codes(reasoning))
