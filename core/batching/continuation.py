"""Prompts that do not end with the header of an answer.

The rules are those of transformers: a continued message ends after its last character, or before
its trailing white space if the template removes it.
"""

from collections.abc import Sequence
from typing import assert_never

from core.batching.omissions import omitted, parts_of
from core.batching.template import ChatTemplate, Unrenderable, leaves_out
from core.batching.template_input import Message
from core.spec.generation import PromptEnding

_MARK = "\ufdd1\ufdd0"
"""Never part of a message, where both characters are replaced by placeholders."""


def prompt_with_ending(
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Sequence[Message],
    ending: PromptEnding,
) -> str:
    """Return a prompt with this ending; Unrenderable as `ChatTemplate.prompt`."""
    match ending:
        case "generation_prompt":
            return template.prompt(messages, tools)
        case "nothing":
            return _rendered(template, messages, tools)
        case "final_message":
            return _continued(template, messages, tools)
        case _:
            assert_never(ending)


def _rendered(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Message], mark: str = ""
) -> str:
    """Return the rendered messages, the last of them with a mark after its text."""
    control = template.source(tools).control
    hidden, hidden_tools = control.hide(messages), control.hide(tools)
    path = f"messages[{len(messages) - 1}].content"
    marked = [*hidden[:-1], {**hidden[-1], "content": hidden[-1]["content"] + mark}]
    text = template.render(marked, hidden_tools)
    if mark.strip() not in text:
        raise leaves_out(path)
    if (omission := omitted(parts_of(hidden, hidden_tools), text)) is not None:
        raise leaves_out(omission)
    return text


def _continued(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Message]
) -> str:
    """Return the text up to the end of the last message's content."""
    last = messages[-1]
    where = f"messages[{len(messages) - 1}]"
    if last["role"] != "assistant":
        raise Unrenderable(
            f"continue_final_message needs a last message of the assistant, not of {last['role']}",
            f"{where}.role",
        )
    if last.get("tool_calls"):
        raise Unrenderable(
            "a message with tool calls is complete; continue_final_message cannot continue it",
            f"{where}.tool_calls",
        )
    # The space shows whether the template keeps the white space at the end of a message.
    before, _, after = _rendered(template, messages, tools, mark=f"{_MARK} ").rpartition(_MARK)
    return before if after.startswith(" ") else before.rstrip()
