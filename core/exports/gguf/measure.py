"""Measures the parts of a chat template by rendering conversations of known words."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.batching.template import ChatTemplate, Unrenderable
from core.exports.gguf.chat_shape import Calls, ChatShape, Position, Results, Tools
from core.exports.gguf.chat_text import chat_text
from core.exports.gguf.go_json import STYLES
from core.exports.gguf.known_words import (
    ANSWERS,
    ARGUMENTS,
    IDS,
    NAME,
    RESULTS,
    SYSTEM,
    TEXT,
    USERS,
    Message,
    answer,
    called,
    system,
    told,
    tool,
    user,
)
from core.exports.gguf.segments import Segments, Slot, split, with_slots


class NotMeasurable(Exception):
    """The template does not write a conversation as a row of parts."""


@dataclass(frozen=True)
class Renderer:
    """A chat template without the first token, which llama.cpp adds itself."""

    template: ChatTemplate
    first_token: str

    def prompt(self, messages: Sequence[Message], tools: Sequence[Message] = ()) -> str:
        """Return the prompt of the next answer; "" if the template cannot write it."""
        try:
            text = self.template.prompt(messages, tools)
        except Unrenderable:
            return ""
        shown = self.template.source(tools).control.show(text)
        return shown.removeprefix(self.first_token)

    def whole(self, messages: Sequence[Message], tools: Sequence[Message] = ()) -> str:
        """Return the conversation without a header after it; "" if it cannot be written."""
        try:
            return self.template.render(messages, tools).removeprefix(self.first_token)
        except Unrenderable:
            return ""

    def shared(self, one: str, other: str) -> str:
        """Return the text that two texts begin with, without a part of a control token."""
        return self.template.source().control.common(one, other)


def measure(renderer: Renderer) -> ChatShape:
    """Return the parts of a template; NotMeasurable if not even users and answers have any."""
    three = [user(0), answer(0), user(1), answer(1), user(2)]
    prompt, whole = renderer.prompt(three), renderer.whole(three)
    ended = renderer.whole(three[:2]).partition(ANSWERS[0])[2]
    between_UA = _between(prompt, USERS[0], ANSWERS[0])
    end = renderer.shared(ended, _between(prompt, ANSWERS[0], USERS[1]))
    tail = prompt.partition(USERS[2])[2]
    user_end = renderer.shared(renderer.shared(whole.partition(USERS[2])[2], between_UA), tail)
    leads = dict(_leads(renderer, None, end))
    if not prompt or Position(True, True, system=False, tools=False) not in leads:
        raise NotMeasurable
    start, header = between_UA.removeprefix(user_end), tail.removeprefix(user_end)
    shape = ChatShape(leads, user_end, start, end, header)
    if chat_text(shape, three) != prompt:
        raise NotMeasurable
    return _with_tools(renderer, shape)


def _with_tools(renderer: Renderer, shape: ChatShape) -> ChatShape:
    tools = _tools(renderer)
    if tools is None:
        return shape
    leads = {**shape.leads, **dict(_leads(renderer, tools, shape.end))}
    calls = _calls(renderer, shape)
    results = _results(renderer, shape, calls) if calls else None
    parts = (shape.user_end, shape.start, shape.end, shape.header)
    return ChatShape(leads, *parts, tools, calls, results)


def _leads(
    renderer: Renderer, tools: Tools | None, end: str
) -> Iterator[tuple[Position, Segments]]:
    given = [tool("oneQz")] if tools else []
    words = [(SYSTEM, Slot.SYSTEM)]
    if tools:
        words.append((_listed(tools, given[0]), Slot.TOOLS))
    for with_system in (False, True):
        before = [system()] if with_system else []
        if one := renderer.prompt([*before, user(0)], given):
            lead = one.partition(USERS[0])[0]
            yield Position(True, True, with_system, bool(tools)), with_slots(lead, words)
        messages = [*before, user(0), answer(0), user(1), answer(1), user(2)]
        three = renderer.prompt(messages, given)
        if not three:
            continue
        first = three.partition(USERS[0])[0]
        yield Position(True, False, with_system, bool(tools)), with_slots(first, words)
        for n, last in ((1, False), (2, True)):
            lead = _between(three, ANSWERS[n - 1], USERS[n])
            if lead.startswith(end):
                position = Position(False, last, with_system, bool(tools))
                yield position, with_slots(lead.removeprefix(end), words)


def _tools(renderer: Renderer) -> Tools | None:
    one, two = tool("oneQz"), tool("twoQz")
    text = renderer.prompt([user(0)], [one, two])
    for whole in (True, False):
        for style in STYLES:
            tools = Tools(style, whole, "")
            first, second = _listed(tools, one), _listed(tools, two)
            if first in text and second in text:
                return Tools(style, whole, _between(text, first, second))
    return None


def _listed(tools: Tools, one: Message) -> str:
    return tools.style.dumps(one if tools.whole else one["function"])


def _calls(renderer: Renderer, shape: ChatShape) -> Calls | None:
    """Measure calls that a result follows: some templates write the last answer otherwise."""
    given = [tool(NAME)]
    one = _after_user(shape, renderer.prompt([user(0), called(1), told(0)], given))
    style = next((style for style in STYLES if style.dumps(ARGUMENTS) in one), None)
    if style is None:
        return None
    arguments = style.dumps(ARGUMENTS)
    opening, _, rest = one.partition(NAME)
    start = renderer.shared(opening, shape.start)
    middle, _, after = rest.partition(arguments)
    last = renderer.whole([user(0), called(1)], given).rpartition(arguments)[2]
    end, close, between = _with_ids(renderer.shared(after, last)), Segments(), None
    two = _after_user(shape, renderer.prompt([user(0), called(2), told(0), told(1)], given))
    if two.count(arguments) == 2:
        joint = _with_ids(two.split(arguments)[1].rpartition(NAME)[0])
        end, between, close = split(joint, end, renderer.shared)
    first = _with_ids(opening.removeprefix(start))
    after_text = _after_text(renderer, shape, given)
    return Calls(start, first, after_text, middle, style, between, end, close)


def _after_text(renderer: Renderer, shape: ChatShape, given: list[Message]) -> Segments | None:
    worded = _after_user(shape, renderer.prompt([user(0), called(1, TEXT), told(0)], given))
    start, found, rest = worded.partition(TEXT)
    return _with_ids(rest.partition(NAME)[0]) if found and start == shape.start else None


def _results(renderer: Renderer, shape: ChatShape, calls: Calls) -> Results | None:
    given, talk = [tool(NAME)], [user(0), called(1), told(0)]
    after_call = renderer.prompt(talk, given).partition(calls.style.dumps(ARGUMENTS))[2]
    quoted = json.dumps(RESULTS[0]) in after_call
    first, second = map(json.dumps, RESULTS) if quoted else RESULTS
    before, found, after = after_call.partition(first)
    if not found:
        return None
    opening = split(_with_ids(before), (*calls.end, *calls.close), renderer.shared)[1]
    closing = _with_ids(renderer.shared(after, renderer.whole(talk, given).partition(first)[2]))
    both = renderer.prompt([user(0), called(2), told(0), told(1)], given)
    if first not in both or second not in both:
        return Results(opening, opening, closing, (), quoted)
    joint = _with_ids(_between(both, first, second))
    end, between, close = split(joint, closing, renderer.shared)
    return Results(opening, between, end, close, quoted)


def _after_user(shape: ChatShape, text: str) -> str:
    """Return the text after the first user, "" if it is not as in other conversations."""
    after = text.partition(USERS[0])[2]
    return after.removeprefix(shape.user_end) if after.startswith(shape.user_end) else ""


def _with_ids(text: str) -> Segments:
    return with_slots(text, [(id_, Slot.ID) for id_ in IDS])


def _between(text: str, before: str, after: str) -> str:
    return text.partition(before)[2].partition(after)[0]
