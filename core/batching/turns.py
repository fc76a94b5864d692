"""Renders the assistant's turns: the exact text that follows the prompt of each turn.

The answer is the rest of the rendered conversation after the prompt. Many templates change earlier
text when an answer follows (Mistral moves the system text, R1 and Qwen 3 drop the opening of
reasoning); then both texts are aligned at the message before the answer. An answer ends with the
token at which the engine stops.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.batching.omissions import (
    Part,
    after_marker,
    marked_conversation,
    omitted,
    parts_of,
    reasoning_of,
    shape_of,
)
from core.batching.reasoning_marks import reasoning_marks
from core.batching.template import ChatTemplate, Omission, Unrenderable, leaves_out
from core.batching.template_input import Message
from core.datasets.formats import ChatExample

_MARK = "\ufdd0\ufdd1"
"""Never part of a message, where both characters are replaced by placeholders."""


@dataclass(frozen=True)
class Turn:
    """A prompt and its answer; control tokens from messages are placeholders in both."""

    prompt: str
    answer: str


def trained_turns(template: ChatTemplate, example: ChatExample) -> list[Turn]:
    """Return the turns whose answers are trained on: those without weight 0."""
    return [
        turn_of(template, example.messages, example.tools, index)
        for index, message in enumerate(example.messages)
        if message["role"] == "assistant" and message.get("weight", 1)
    ]


def turn_of(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Message], index: int
) -> Turn:
    """Return the turn of the assistant message at `index`.

    Unrenderable if the template rejects the messages or omits a part of them.
    """
    prompt = template.prompt(messages[:index], tools)
    control = template.source(tools).control
    hidden, hidden_tools = control.hide(messages[: index + 1]), control.hide(tools)
    answer = _answer(template, hidden, hidden_tools, prompt)

    def find() -> str | None:
        """Return the part that the template omits from every turn of this shape."""
        marked, marked_tools = marked_conversation(messages[: index + 1], tools)
        try:
            prompt = template.prompt_of_hidden(marked[:-1], marked_tools)
            _answer(template, marked, marked_tools, prompt)
        except Omission as problem:
            return problem.field
        except Unrenderable:  # it may accept the real messages only
            return None
        return None

    shape = shape_of(messages[: index + 1], tools)
    if (path := template.remembered(tools, ("turn", shape), find)) is not None:
        raise leaves_out(path)
    return Turn(prompt, answer)


def end_token_ids(template: ChatTemplate) -> set[int]:
    """Return the control tokens that end the assistant's turns, with calls and without."""
    found = set()
    for messages, tools in _SAMPLES:
        try:
            answer = turn_of(template, messages, tools, 1).answer
        except Unrenderable:
            continue
        control = template.source(tools).control
        if token := control.ending(answer):
            found.add(control.ids[token])
    return found


_TOOL = {"type": "function", "function": {"name": "a", "description": "", "parameters": {}}}
_CALL = {"id": "call00000", "type": "function", "function": {"name": "a", "arguments": {}}}
_QUESTION = {"role": "user", "content": "a"}
_CALLING = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_SAMPLES: tuple[tuple[tuple[Message, ...], tuple[Message, ...]], ...] = (
    ((_QUESTION, {"role": "assistant", "content": "b"}), ()),
    ((_QUESTION, _CALLING), (_TOOL,)),
    ((_QUESTION, _CALLING), ()),
)


def _answer(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Message], prompt: str
) -> str:
    """Return the text that the last message adds to `prompt`, including its end."""
    end = _end_of_turn(template, messages[-1], tools)
    problem: Unrenderable | None = None
    for candidate in _candidates(template, messages, tools, prompt):
        if isinstance(candidate, Unrenderable):
            problem = problem or candidate
            continue
        text, parts = candidate
        if path := omitted(iter(parts), text):
            problem = problem or leaves_out(path)
            continue
        return end.applied(text)
    raise problem or Unrenderable(
        f"the chat template renders nothing for messages[{len(messages) - 1}] after its prompt",
        f"messages[{len(messages) - 1}]",
    )


def _candidates(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Message], prompt: str
) -> Iterator[tuple[str, list[Part]] | Unrenderable]:
    """Yield candidate texts of the last message, each with the parts that it must contain."""
    *before, message = messages
    index = len(before)
    marks = reasoning_marks(template, tools)
    plain = {key: value for key, value in message.items() if key != "reasoning_content"}
    reasoning = message.get("reasoning_content", "")
    parts = list(parts_of([message], first=index))
    thought = list(reasoning_of(message, index))

    def written(variant: Message, parts: list[Part]) -> tuple[str, list[Part]] | Unrenderable:
        try:
            missing, text = _after_prompt(template, [*before, variant], tools, prompt, parts)
        except Unrenderable as problem:
            return problem
        if not missing:
            return text, parts
        if variant["content"] != message["content"]:  # reasoning after one that the prompt closed
            return leaves_out(thought[0][0])
        answer = marks.without_empty(text)
        if not marks.opened_by(prompt):
            return answer, parts
        return variant.get("reasoning_content", "") + marks.end + answer, parts

    if marks.opened_by(prompt) and not reasoning:
        # The template closes reasoning only if there is some.
        yield _emptied(written({**plain, "reasoning_content": _MARK}, parts))
    if reasoning and marks.closed_by(prompt):
        yield leaves_out(thought[0][0])
    else:
        yield written(message, [*thought, *parts])
    if reasoning and template.thinking_is_off:
        yield written(plain, parts)
    if reasoning and not marks.opened_by(prompt) and not marks.closed_by(prompt):
        content = marks.around(reasoning) + plain["content"]
        embedded = written({**plain, "content": content}, [*thought, *parts])
        if not isinstance(embedded, Unrenderable) and _follows_calls(thought, parts, embedded[0]):
            embedded = leaves_out(thought[0][0])
        yield embedded


def _follows_calls(thought: Sequence[Part], parts: Sequence[Part], text: str) -> bool:
    """Whether reasoning comes after a call, where it does not count as reasoning."""
    calls = [text.find(part) for path, part in parts if "tool_calls" in path]
    return any(0 <= at < text.find(thought[0][1]) for at in calls[:1])


def _emptied(
    written: tuple[str, list[Part]] | Unrenderable,
) -> tuple[str, list[Part]] | Unrenderable:
    if isinstance(written, Unrenderable):
        return written
    text, parts = written
    if _MARK not in text:
        return Unrenderable("the chat template shows no reasoning")
    return text.replace(_MARK, ""), parts


def _after_prompt(
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Sequence[Message],
    prompt: str,
    parts: Sequence[Part],
) -> tuple[str, str]:
    """Return the end of the prompt that the template omits from history, and the answer.

    The first is "" for most templates. Others write `<think>` in the prompt but not in history.
    """
    text = template.render(messages, tools)
    if text.startswith(prompt):
        return "", text[len(prompt) :]
    *before, message = messages
    if not before:
        raise _misaligned(0)
    marked = [*before[:-1], {**before[-1], "content": before[-1]["content"] + _MARK}]
    _, mark, header = template.prompt_of_hidden(marked, tools).rpartition(_MARK)
    rest = template.render([*marked, message], tools).rpartition(_MARK)[2]
    if not mark:
        raise _misaligned(len(before))
    control = template.source(tools).control
    if rest.startswith(header):
        return "", rest[len(header) :]
    for end in control.suffixes(header):
        _, found, answer = rest.partition(end)
        if found and omitted(iter(parts), answer) is None:
            return "", answer
    shared = control.common(header, rest)
    return header[len(shared) :], rest[len(shared) :]


def _misaligned(index: int) -> Unrenderable:
    return Unrenderable(
        f"the chat template renders messages[{index}] differently in the conversation and in the "
        "prompt of its turn, so it has no exact loss mask; set its weight to 0, or use another "
        "base model",
        f"messages[{index}]",
    )


@dataclass(frozen=True)
class _End:
    """The end of a turn."""

    token: str
    """The control token at which the engine stops, or ""."""
    is_written: bool
    """Whether the template writes the token in the turn; if not, it is appended."""
    trailing: str = ""
    """The white space that the template writes instead of a control token."""

    def applied(self, text: str) -> str:
        """Return an answer that ends where the engine stops."""
        if not self.token:
            return text
        if self.is_written:
            at = text.rfind(self.token)
            return text if at < 0 else text[: at + len(self.token)]
        return text.removesuffix(self.trailing) + self.token


def _end_of_turn(template: ChatTemplate, message: Message, tools: Sequence[Message]) -> _End:
    """Return the end of turns like `message`, cached for turns with 0, 1 and more calls."""
    calls = len(message.get("tool_calls", ()))
    found: _End = template.remembered(
        tools, ("end", min(calls, 2)), lambda: _find_end(template, message, tools)
    )
    return found


def _find_end(template: ChatTemplate, message: Message, tools: Sequence[Message]) -> _End:
    """Compare the text after an answer at the end of a conversation and before a message."""
    question = {"role": "user", "content": "question"}
    (answer,), marked_tools = marked_conversation([message], tools)

    def rendered(*messages: Message) -> str:
        try:
            return template.render([question, *messages], marked_tools)
        except Unrenderable:
            return ""

    def closes_calls(token: str) -> bool:
        """Whether a token ends each call and not the turn."""
        calls = answer.get("tool_calls", [])
        two = rendered({**answer, "tool_calls": [*calls, *calls]}) if calls else ""
        return two.count(token) > rendered(answer).count(token)

    control = template.source(tools).control
    alone, later = after_marker(rendered(answer)), after_marker(rendered(answer, *_next(answer)))
    body = alone.rstrip()
    for text in (control.common_end(alone, later), body):
        if (token := control.ending(text)) and not closes_calls(token):
            return _End(token, is_written=True)
    next_token = control.opening(later[len(body) :].lstrip()) if later.startswith(body) else ""
    end = next_token or template.tokenizer.eos_token or ""
    return _End(end, is_written=False, trailing=alone[len(body) :])


def _next(answer: Message) -> list[Message]:
    if calls := answer.get("tool_calls"):
        return [{"role": "tool", "content": "a", "tool_call_id": call["id"]} for call in calls]
    return [{"role": "user", "content": "a"}]
