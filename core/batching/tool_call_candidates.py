"""The candidate tool-call formats for the probed answers of a chat template."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from core.batching.call_literals import NAME_HOLE, Frame, common_end, common_start
from core.batching.forced_call import ForcedCall, ForcedPairs
from core.batching.probe import KEYS
from core.batching.tool_call_probes import OTHER, VALUE, ProbedAnswers
from core.batching.tool_calls import (
    ArgumentReader,
    JsonArguments,
    JsonCalls,
    LooseArguments,
    NamedCalls,
    PairArguments,
    ToolCallFormat,
)

_decoder = json.JSONDecoder()

Span = tuple[int, int]
SpanFinder = Callable[[str, int], Span | None]
"""Finds the arguments of a call in a text, from a position on."""


def candidates(answers: ProbedAnswers) -> Iterator[ToolCallFormat]:
    yield from _json_formats(answers)
    yield from _named_formats(answers)
    yield from _loose_formats(answers)
    yield from _pair_formats(answers)


def _json_formats(answers: ProbedAnswers) -> Iterator[ToolCallFormat]:
    """Yield formats of calls as JSON objects that include the name."""
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
    """Return the position of the first JSON call, and its keys for name and arguments."""
    for position in range(start, len(text)):
        if text[position] in "[{":
            try:
                value, end = _decoder.raw_decode(text, position)
            except ValueError:
                continue
            keys = _keys_of_call(value)
            if keys is not None:
                return position, end, keys
    return None


def _keys_of_call(value: Any) -> tuple[str, str] | None:
    """Return the keys of name and arguments, at any depth."""
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


def _json_span(text: str, start: int) -> Span | None:
    """Return the position of the arguments as a JSON object."""
    position = text.find("{", start)
    while position >= 0:
        try:
            value, end = _decoder.raw_decode(text, position)
        except ValueError:
            value, end = None, position
        if isinstance(value, dict) and KEYS[0] in value:
            return position, end
        position = text.find("{", position + 1)
    return None


def _loose_span(opening: str, closing: str) -> SpanFinder:
    def span(text: str, start: int) -> Span | None:
        key = text.find(KEYS[0], start)
        value = _value_after(text, key)
        end = text.find(closing, value)
        opened = text.rfind(opening, start, key)
        return None if min(key, value, end, opened) < 0 else (opened, end + 1)

    return span


def _value_after(text: str, start: int) -> int:
    """Return the position of the first probe value; -1 if there is none."""
    found = [position for value in (VALUE, OTHER) if (position := text.find(value, start)) >= 0]
    return min(found, default=-1)


def _parts(text: str, span_of: SpanFinder) -> tuple[str, str, int, int] | None:
    """Return the text before the first name, the text up to its arguments, and their span."""
    first = text.find(NAME_HOLE)
    if first < 0 or (span := span_of(text, first)) is None:
        return None
    name = text.rfind(NAME_HOLE, 0, span[0])
    return text[:name], text[name + 1 : span[0]], *span


def _forced(text: str, span_of: SpanFinder) -> ForcedCall | None:
    parts = _parts(text, span_of)
    if parts is None or NAME_HOLE in text[parts[3] :]:
        return None
    before, amid, _, end = parts
    return ForcedCall(before, amid, text[end:])


def _frame(answers: ProbedAnswers, span_of: SpanFinder) -> tuple[Frame, str] | None:
    """Return the delimiters of calls with a name and arguments, and the text between the two."""
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


def _named_formats(answers: ProbedAnswers) -> Iterator[ToolCallFormat]:
    """Yield formats of a name followed by one JSON object."""
    found = _frame(answers, _json_span)
    if found is not None:
        assert answers.one is not None
        forced = _forced(answers.one, _json_span)
        yield NamedCalls(*found, JsonArguments(), forced=forced)


def _loose_formats(answers: ProbedAnswers) -> Iterator[ToolCallFormat]:
    """Yield formats of a name and an object with bare keys, or of a Python call."""
    assert answers.one is not None
    for opening, closing, colon in ("{", "}", ":"), ("(", ")", "="):
        found = _frame(answers, _loose_span(opening, closing))
        quote = re.search(f"{KEYS[0]}{colon}\\s*(.{{1,8}}?){VALUE}", answers.one, re.DOTALL)
        if found is None or quote is None:
            continue
        quotes = (quote[1],) if opening == "{" else ('"', "'")
        for escapes in False, True:
            reader = LooseArguments(quotes, escapes, is_python=opening == "(")
            yield NamedCalls(*found, reader)


def _pair_formats(answers: ProbedAnswers) -> Iterator[ToolCallFormat]:
    """Yield formats of a name and a pair of texts per argument."""
    one, pair = answers.one, answers.pair
    if one is None or pair is None or not _has_pairs(one) or not _has_pairs(pair, KEYS[1]):
        return
    before = one[one.rfind(NAME_HOLE, 0, one.find(KEYS[0])) + 1 : one.find(KEYS[0])]
    value_end = one.find(VALUE) + len(VALUE)
    amid = one[one.find(KEYS[0]) + len(KEYS[0]) : one.find(VALUE)]
    between = pair[pair.find(VALUE) + len(VALUE) : pair.find(KEYS[1])]
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
    value = VALUE if key == KEYS[0] else OTHER
    name, position = text.find(NAME_HOLE), text.find(key)
    return 0 <= name < position < text.find(value)
