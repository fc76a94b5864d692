"""What the assistant has to write at its turn: exactly what follows the prompt of that turn.

The answer is found by rendering the conversation up to it and taking what follows the prompt.
Many templates rewrite what came before once an answer follows (Mistral moves the system text, R1
and Qwen 3 drop their opening of a thought); there both texts are aligned at the message before
the answer. The end of an answer is the token that lets the engine stop, and nothing after it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from core.batching.omissions import (
    Part,
    after_marker,
    marked_conversation,
    omitted,
    parts_of,
    reasoning_of,
    shape_of,
)
from core.batching.template import ChatTemplate, Omission, Unrenderable, leaves_out
from core.batching.template_input import Message
from core.datasets.formats import ChatExample

_MARK = "\ufdd0\ufdd1"
"""No text of a message holds it: both characters are hidden there."""

_OPEN_THOUGHT = re.compile(r"<think>\s*\Z")
_EMPTY_THOUGHT = re.compile(r"<think>\s*</think>\s*\Z")
_WRITTEN_THOUGHT = re.compile(r"\A\s*<think>\s*</think>\s*")
_END_OF_THOUGHT = "\n</think>\n\n"


@dataclass(frozen=True)
class Turn:
    """One answer; control tokens that a message merely spells are hidden in both texts."""

    prompt: str
    answer: str


def trained_turns(template: ChatTemplate, example: ChatExample) -> list[Turn]:
    """Return the turns whose answers are trained: all but those with weight 0."""
    return [
        turn_of(template, example.messages, example.tools, index)
        for index, message in enumerate(example.messages)
        if message["role"] == "assistant" and message.get("weight", 1)
    ]


def turn_of(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Message], index: int
) -> Turn:
    """Return the turn that ends with the assistant's message number `index`.

    Unrenderable when the template refuses the messages or leaves out a part of them.
    """
    prompt = template.prompt(messages[:index], tools)
    control = template.source(tools).control
    hidden, hidden_tools = control.hide(messages[: index + 1]), control.hide(tools)
    answer = _answer(template, hidden, hidden_tools, prompt)

    def find() -> str | None:
        """Return what the template leaves out of every such turn."""
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
    """Return the control tokens that end the turns of the assistant, with calls and without."""
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
    """Return what the last message adds to `prompt`, its end included."""
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
        f"the chat template writes nothing for messages[{len(messages) - 1}] after its prompt",
        f"messages[{len(messages) - 1}]",
    )


def _candidates(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Message], prompt: str
) -> Iterator[tuple[str, list[Part]] | Unrenderable]:
    """Yield what the template may write for the last message, and the parts that it must show."""
    *before, message = messages
    index = len(before)
    plain = {key: value for key, value in message.items() if key != "reasoning_content"}
    reasoning = message.get("reasoning_content", "")
    parts = list(parts_of([message], first=index))
    thought = list(reasoning_of(message, index))

    def rendered(variant: Message, removed: int = 0) -> str | Unrenderable:
        start = prompt[: len(prompt) - removed]
        try:
            return _continuation(template, [*before, variant], tools, start, removed)
        except Unrenderable as problem:
            return problem

    def candidate(text: str | Unrenderable, parts: list[Part]) -> Any:
        return text if isinstance(text, Unrenderable) else (text, parts)

    yield candidate(rendered(message), [*thought, *parts])
    if not reasoning:
        # The prompt may open a thought which the template then writes only where there is one.
        text = rendered({**plain, "reasoning_content": _MARK})
        yield candidate(text if isinstance(text, Unrenderable) else _emptied(text), parts)
    elif template.thinking_is_off:
        yield candidate(rendered(plain), parts)
    if opened := _OPEN_THOUGHT.search(prompt):
        text = rendered(plain, len(opened[0]))
        if isinstance(text, str):
            text = reasoning + _END_OF_THOUGHT + _WRITTEN_THOUGHT.sub("", text)
        yield candidate(text, [*thought, *parts])
    elif reasoning and not _EMPTY_THOUGHT.search(prompt):
        content = f"<think>\n{reasoning}{_END_OF_THOUGHT}{plain['content']}"
        yield candidate(rendered({**plain, "content": content}), [*thought, *parts])


def _emptied(text: str) -> str | Unrenderable:
    if _MARK not in text:
        return Unrenderable("the chat template shows no reasoning")
    return text.replace(_MARK, "")


def _continuation(
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Sequence[Message],
    prompt: str,
    removed: int = 0,
) -> str:
    """Return what the template writes after `prompt` once the last of the messages is there.

    So many characters were `removed` from the end of the prompt, to be written by the answer.
    """
    text = template.render(messages, tools)
    if text.startswith(prompt):
        return text[len(prompt) :]
    *before, message = messages
    if before:
        marked = [*before[:-1], {**before[-1], "content": before[-1]["content"] + _MARK}]
        _, mark, header = template.prompt_of_hidden(marked, tools).rpartition(_MARK)
        header = header[: len(header) - removed]
        rest = template.render([*marked, message], tools).rpartition(_MARK)[2]
        if mark and rest.startswith(header):
            return rest[len(header) :]
    index = len(before)
    raise Unrenderable(
        f"the chat template writes messages[{index}] otherwise than the prompt of its turn begins "
        "it, so it has no exact loss mask; give it weight 0, or use another base model",
        f"messages[{index}]",
    )


@dataclass(frozen=True)
class _End:
    """How a template ends a turn, as far as the engine can see it."""

    token: str
    """The control token at which the engine stops; empty when there is none."""
    is_written: bool
    """The template writes it in the turn itself; else it is put there."""
    trailing: str = ""
    """White space after an answer, in place of a control token."""

    def applied(self, text: str) -> str:
        """Return an answer that ends where the engine stops."""
        if not self.token:
            return text
        if self.is_written:
            at = text.rfind(self.token)
            return text if at < 0 else text[: at + len(self.token)]
        return text.removesuffix(self.trailing) + self.token


def _end_of_turn(template: ChatTemplate, message: Message, tools: Sequence[Message]) -> _End:
    """Return how the template ends turns of the kind of `message`, found once for each kind."""
    calls = len(message.get("tool_calls", ()))
    found: _End = template.remembered(
        tools, ("end", min(calls, 2)), lambda: _find_end(template, message, tools)
    )
    return found


def _find_end(template: ChatTemplate, message: Message, tools: Sequence[Message]) -> _End:
    """Compare what follows an answer at the end of a conversation and before the next message."""
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
