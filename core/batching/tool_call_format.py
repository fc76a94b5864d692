"""How a chat template writes tool calls.

Every family has a way of its own. It is found by letting the template write calls that are known:
each way that could have made the text is tried, and the first one that reads all of them back is
taken.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from core.batching.call_literals import ID_HOLE, NAME_HOLE, Frame, common_end, common_start
from core.batching.coded_tokens import CodedTokens
from core.batching.forced_call import ForcedCall, ForcedPairs
from core.batching.probe import IDS, KEYS, NAMES, TEXT, TOOLS, Call, answer_with
from core.batching.section import Section
from core.batching.template import ChatTemplate
from core.batching.tool_calls import (
    ArgumentReader,
    JsonArguments,
    JsonCalls,
    LooseArguments,
    NamedCalls,
    PairArguments,
    ToolCallFormat,
    read_calls,
)
from core.batching.turns import Turn

_decoder = json.JSONDecoder()
_VALUE, _OTHER = "probe value", "other value"
_ARGUMENTS = {KEYS[0]: _VALUE}

ONE: tuple[Call, ...] = ((NAMES[0], _ARGUMENTS),)
TWO: tuple[Call, ...] = (*ONE, (NAMES[1], {KEYS[0]: _OTHER}))
BARE: tuple[Call, ...] = ((NAMES[0], {}),)
PAIR: tuple[Call, ...] = ((NAMES[0], {KEYS[0]: _VALUE, KEYS[1]: _OTHER}),)
TRIALS: tuple[tuple[Call, ...], ...] = (
    ((NAMES[0], {KEYS[0]: 'a "quoted"\n\ntext, (with) \\ and <b>', KEYS[1]: 3}),),
    ((NAMES[0], {KEYS[0]: "it's 5", KEYS[1]: None}),),
    ((NAMES[0], {KEYS[0]: "7", KEYS[1]: True}), (NAMES[1], {})),
    ((NAMES[0], {KEYS[0]: "größer", KEYS[1]: [1, "x", {"a": {"b": -1.5, "c": "d"}}]}),),
)


@dataclass(frozen=True)
class Written:
    """Answers with calls that a template has written; None for what it refuses."""

    one: Turn | None
    two: Turn | None
    bare: Turn | None
    pair: Turn | None
    content: Turn | None
    """A text and one call."""
    trials: tuple[tuple[tuple[Call, ...], Turn], ...]

    @staticmethod
    def by(template: ChatTemplate) -> "Written":
        one = answer_with(template, "", ONE)
        if one is None:
            return Written(None, None, None, None, None, ())
        trials = [(calls, answer_with(template, "", calls)) for calls in TRIALS]
        return Written(
            one=one,
            two=answer_with(template, "", TWO),
            bare=answer_with(template, "", BARE),
            pair=answer_with(template, "", PAIR),
            content=answer_with(template, TEXT, ONE),
            trials=tuple((calls, turn) for calls, turn in trials if turn is not None),
        )

    @property
    def turns(self) -> tuple[Turn | None, ...]:
        return (self.one, self.two, self.bare, self.pair, self.content)


def tool_call_format(
    written: Written, control: CodedTokens, ends: tuple[str, ...], reasoning: Section | None
) -> ToolCallFormat | None:
    """Return how calls are written; None when that is not understood."""
    if written.one is None:
        return None
    answers = _Answers(written, control, ends, reasoning)
    best, most = None, 0
    for format_ in _possible(answers):
        readable = sum(answers.reads_back(format_, calls, turn) for calls, turn in answers.all)
        if answers.reads_back(format_, ONE, written.one) and readable > most:
            best, most = format_, readable
    return best


class _Answers:
    """What a template has written, coded, with holes for names and ids, without its end."""

    def __init__(
        self,
        written: Written,
        control: CodedTokens,
        ends: tuple[str, ...],
        reasoning: Section | None,
    ) -> None:
        self._control = control
        self._block = empty_block(reasoning)
        self._ends = sorted(ends, key=len, reverse=True)
        kept = [(ONE, written.one), (TWO, written.two), (BARE, written.bare), (PAIR, written.pair)]
        self.all = [*((calls, turn) for calls, turn in kept if turn), *written.trials]
        self.one, self.two, self.bare, self.pair = (
            None if turn is None else self.holed(turn) for _, turn in kept
        )

    def text(self, turn: Turn) -> str:
        """Return the coded text of an answer."""
        answer = turn.answer.rstrip()
        end = next((end for end in self._ends if end and answer.endswith(end)), "")
        return self._block.sub("", self._control.coded(answer.removesuffix(end)))

    def holed(self, turn: Turn) -> str:
        text = self.text(turn)
        for name in NAMES:
            text = text.replace(name, NAME_HOLE)
        for id_ in IDS:
            text = text.replace(id_, ID_HOLE)
        return text

    def reads_back(self, format_: ToolCallFormat, calls: Sequence[Call], turn: Turn) -> bool:
        """Whether a format finds in an answer just the calls that were written there."""
        tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
        text = self.text(turn)
        marker = format_.frame.marker
        start = text.find(marker) if marker else 0
        if start < 0:
            return False
        read = read_calls(format_, text[start:], tools)
        found = [(call.name, json.loads(call.arguments)) for call in read.calls]
        return found == [*calls] and not read.text.strip()


def empty_block(reasoning: Section | None) -> re.Pattern[str]:
    """Return a pattern for reasoning without any text, which stands before many answers."""
    if reasoning is None:
        return re.compile(r"(?!)")
    opening, closing = re.escape(reasoning.opening.strip()), re.escape(reasoning.closing.strip())
    return re.compile(rf"^\s*(?:{opening})?\s*{closing}\s*")


def _possible(answers: _Answers) -> Iterator[ToolCallFormat]:
    yield from _json_formats(answers)
    yield from _named_formats(answers)
    yield from _loose_formats(answers)
    yield from _pair_formats(answers)


def _json_formats(answers: _Answers) -> Iterator[ToolCallFormat]:
    """Calls that are JSON objects, their names in them."""
    assert answers.one is not None
    span = _json_call(answers.one, 0)
    if span is None:
        return
    start, end, keys = span
    frame = Frame("", answers.one[:start], answers.one[end:])
    if answers.two is not None:
        first = _json_call(answers.two, 0)
        second = first and _json_call(answers.two, first[1])
        if first and second:
            frame = Frame.of_two(
                answers.two[: first[0]],
                answers.two[first[1] : second[0]],
                answers.two[second[1] :],
            )
        elif first:  # both in one list
            frame = Frame("", answers.two[: first[0]], answers.two[first[1] :])
    yield JsonCalls(frame, *keys, forced=_forced(answers.one, _json_span))


def _json_call(text: str, start: int) -> tuple[int, int, tuple[str, str]] | None:
    """Return where the first call stands that is JSON, and under which keys its parts."""
    for place in range(start, len(text)):
        if text[place] in "[{":
            try:
                value, end = _decoder.raw_decode(text, place)
            except ValueError:
                continue
            keys = _keys_of_call(value)
            if keys is not None:
                return place, end, keys
    return None


def _keys_of_call(value: Any) -> tuple[str, str] | None:
    """Return under which keys a name and arguments stand, however deep."""
    if isinstance(value, list):
        return next((keys for each in value if (keys := _keys_of_call(each))), None)
    if not isinstance(value, dict):
        return None
    names = [key for key, each in value.items() if each == NAME_HOLE]
    held = [key for key, each in value.items() if _is_arguments(each)]
    if names and held:
        return names[0], held[0]
    return next((keys for each in value.values() if (keys := _keys_of_call(each))), None)


def _is_arguments(value: Any) -> bool:
    if isinstance(value, str):
        return value.startswith("{") and KEYS[0] in value
    return isinstance(value, dict) and KEYS[0] in value


Span = tuple[int, int]


def _json_span(text: str, start: int) -> Span | None:
    """Return where the arguments stand as a JSON object."""
    place = text.find("{", start)
    while place >= 0:
        try:
            value, end = _decoder.raw_decode(text, place)
        except ValueError:
            value, end = None, place
        if isinstance(value, dict) and KEYS[0] in value:
            return place, end
        place = text.find("{", place + 1)
    return None


def _loose_span(opening: str, closing: str) -> Any:
    def span(text: str, start: int) -> Span | None:
        key = text.find(KEYS[0], start)
        value = _value_after(text, key)
        end = text.find(closing, value)
        opened = text.rfind(opening, start, key)
        return None if min(key, value, end, opened) < 0 else (opened, end + 1)

    return span


def _value_after(text: str, start: int) -> int:
    """Return where the first of the probes' values begins; -1 for none."""
    found = [place for value in (_VALUE, _OTHER) if (place := text.find(value, start)) >= 0]
    return min(found, default=-1)


def _parts(text: str, span_of: Any) -> tuple[str, str, int, int] | None:
    """Return what stands before the first name and between it and its arguments, and the span."""
    first = text.find(NAME_HOLE)
    if first < 0 or (span := span_of(text, first)) is None:
        return None
    name = text.rfind(NAME_HOLE, 0, span[0])
    return text[:name], text[name + 1 : span[0]], *span


def _forced(text: str, span_of: Any) -> ForcedCall | None:
    parts = _parts(text, span_of)
    if parts is None or NAME_HOLE in text[parts[3] :]:
        return None
    before, amid, _, end = parts
    return ForcedCall(before, amid, text[end:])


def _frame(answers: _Answers, span_of: Any) -> tuple[Frame, str] | None:
    """Return what stands around calls of a name and its arguments, and between these two."""
    assert answers.one is not None
    one = _parts(answers.one, span_of)
    if one is None:
        return None
    before, amid, _, end = one
    two = None if answers.two is None else _parts(answers.two, span_of)
    if two is None or answers.two is None:
        return Frame("", before, answers.one[end:]), amid
    rest = answers.two[two[3] :]
    second = _parts(rest, span_of)
    if second is None:
        return Frame("", before, answers.one[end:]), amid
    return Frame.of_two(two[0], second[0], rest[second[3] :]), amid


def _named_formats(answers: _Answers) -> Iterator[ToolCallFormat]:
    """A name and then one JSON object."""
    found = _frame(answers, _json_span)
    if found is not None:
        assert answers.one is not None
        forced = _forced(answers.one, _json_span)
        yield NamedCalls(*found, JsonArguments(), forced=forced)


def _loose_formats(answers: _Answers) -> Iterator[ToolCallFormat]:
    """A name and an object with bare names, or what looks like a call of Python."""
    assert answers.one is not None
    for opening, closing, colon in ("{", "}", ":"), ("(", ")", "="):
        found = _frame(answers, _loose_span(opening, closing))
        quote = re.search(f"{KEYS[0]}{colon}\\s*(.{{1,8}}?){_VALUE}", answers.one, re.DOTALL)
        if found is None or quote is None:
            continue
        quotes = (quote[1],) if opening == "{" else ('"', "'")
        for escapes in False, True:
            reader = LooseArguments(quotes, escapes, is_python=opening == "(")
            yield NamedCalls(*found, reader)


def _pair_formats(answers: _Answers) -> Iterator[ToolCallFormat]:
    """A name and a pair of texts for each argument."""
    one, pair = answers.one, answers.pair
    if one is None or pair is None or not _has_pairs(one) or not _has_pairs(pair, KEYS[1]):
        return
    before = one[one.rfind(NAME_HOLE, 0, one.find(KEYS[0])) + 1 : one.find(KEYS[0])]
    value_end = one.find(_VALUE) + len(_VALUE)
    amid = one[one.find(KEYS[0]) + len(KEYS[0]) : one.find(_VALUE)]
    between = pair[pair.find(_VALUE) + len(_VALUE) : pair.find(KEYS[1])]
    opening = common_end(before, between)
    after = common_start(between.removesuffix(opening), one[value_end:])
    to_first = before.removesuffix(opening)

    def span(text: str, start: int) -> Span | None:
        key = text.find(KEYS[0], start)
        value = _value_after(text, key)
        if min(key, value) < 0:
            return None
        return key - len(opening), text.find(after, value) + len(after)

    found = _frame(answers, span)
    if found is None:
        return
    frame, _ = found
    reader: ArgumentReader = PairArguments(opening, amid, after, frame.tail)
    forced = _forced(one, span)
    pairs = ForcedPairs(opening, amid, after)
    yield NamedCalls(
        frame,
        to_first,
        reader,
        forced=forced and ForcedCall(forced.before, forced.amid, forced.after, pairs),
    )


def _has_pairs(text: str, key: str = KEYS[0]) -> bool:
    value = _VALUE if key == KEYS[0] else _OTHER
    name, place = text.find(NAME_HOLE), text.find(key)
    return 0 <= name < place < text.find(value)
