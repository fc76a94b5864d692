"""What an Ollama template cannot say, found by comparing it with the chat template."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.batching.template import ChatTemplate, TemplateContext
from core.exports.gguf.chat_shape import ChatShape
from core.exports.gguf.chat_text import chat_text
from core.exports.gguf.measure import Renderer

Message = Mapping[str, Any]

_DAY_SECONDS = 86_400


def _says(role: str, content: str, **fields: Any) -> Message:
    return {"role": role, "content": content, **fields}


def _tool(properties: Mapping[str, Any], description: str = "Get it.") -> Message:
    parameters = {"type": "object", "properties": properties, "required": [*properties][:1]}
    function = {"name": "get_it", "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def _calls(*arguments: Mapping[str, Any], text: str = "", **fields: Any) -> Message:
    calls = [
        {
            "id": f"call0000{n}",
            "type": "function",
            "function": {"name": "get_it", "arguments": each},
        }
        for n, each in enumerate(arguments)
    ]
    return _says("assistant", text, tool_calls=calls, **fields)


def _told(n: int = 0, text: str = "7 degrees") -> Message:
    return _says("tool", text, tool_call_id=f"call0000{n}")


_TYPE = {"type": "string", "description": "Its place."}
_PLAIN = _tool({"city": _TYPE, "day": {"type": "string", "enum": ["today"]}})
_ASKS, _OSLO = _says("user", "Which one?"), _says("assistant", "Oslo.")
_CITY = {"city": "Oslo"}

KINDS: Mapping[str, tuple[Sequence[Message], Sequence[Message]]] = {
    "several turns": ([_ASKS, _OSLO, _says("user", "And now?")], []),
    "several messages of one role in a row": ([_ASKS, _says("user", "Or none?")], []),
    "a system text": ([_says("system", "Be brief."), _ASKS], []),
    "a system text after the first message": (
        [_ASKS, _OSLO, _says("system", "Be brief."), _says("user", "And now?")],
        [],
    ),
    "white space around a message": ([_says("user", " Which one?\n")], []),
    "reasoning before an earlier answer": (
        [_ASKS, {**_OSLO, "reasoning_content": "I know."}, _says("user", "And now?")],
        [],
    ),
    "tools": ([_ASKS], [_PLAIN]),
    "tools and a system text": ([_says("system", "Be brief."), _ASKS], [_PLAIN]),
    "a call and its result": ([_ASKS, _calls(_CITY), _told()], [_PLAIN]),
    "a text before a call": ([_ASKS, _calls(_CITY, text="Let me see."), _told()], [_PLAIN]),
    "several calls in an answer": (
        [_ASKS, _calls(_CITY, {"city": "Bergen"}), _told(0), _told(1)],
        [_PLAIN],
    ),
    "reasoning before a call": (
        [_ASKS, _calls(_CITY, reasoning_content="I need it."), _told()],
        [_PLAIN],
    ),
    "arguments in another order than that of their names": (
        [_ASKS, _calls({"day": "today", "city": "Oslo"}), _told()],
        [_PLAIN],
    ),
    "lists and objects in arguments": (
        [_ASKS, _calls({"city": ["Oslo", "Bergen"]}), _told()],
        [_PLAIN],
    ),
    "<, > and & in arguments": ([_ASKS, _calls({"city": "A & B"}), _told()], [_PLAIN]),
    "parameters of tools in another order than that of their names": (
        [_ASKS],
        [_tool({"day": _TYPE, "city": _TYPE})],
    ),
    "parameters of tools that are lists or objects": (
        [_ASKS],
        [_tool({"city": {"type": "array", "items": {"type": "string"}}})],
    ),
    "<, > and & in descriptions of tools": ([_ASKS], [_tool({"city": _TYPE}, "Get A & B.")]),
}
"""Conversations before an answer, by what is special about them."""


def omissions(renderer: Renderer, shape: ChatShape) -> tuple[str, ...]:
    """Return a sentence for every kind that the parts write otherwise than the template."""
    return (*_of_kinds(renderer, shape), *_of_dates(renderer))


def _of_kinds(renderer: Renderer, shape: ChatShape) -> Iterator[str]:
    for kind, (messages, tools) in KINDS.items():
        wanted = renderer.prompt(messages, tools)
        if not wanted:
            continue  # the chat template does not write it either
        found = chat_text(shape, messages, tools)
        if found is None:
            yield f"It does not write {kind}."
        elif found != wanted:
            yield f"It writes {kind} differently from the chat template."


def _of_dates(renderer: Renderer) -> Iterator[str]:
    """Templates that write the date are measured today."""
    tokenizer = renderer.template.tokenizer
    contexts = (TemplateContext(time=time) for time in (0.0, 400 * _DAY_SECONDS))
    templates = (ChatTemplate(tokenizer, context) for context in contexts)
    if len({replace(renderer, template=each).prompt([_ASKS]) for each in templates}) > 1:
        yield "It writes the date of the export; the chat template writes the current date."
