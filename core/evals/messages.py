"""The request that asks a model for the answer to one item of an eval run."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import InvalidRequest
from core.grading.result import GraderFailed
from core.grading.template import render
from core.spec.evals import InputMessages, ReferencedMessages, SamplingSpec
from core.spec.grader import GraderMessage

TEXT_PARTS = ("input_text", "output_text", "text")
_TYPE_BY_ROLE = {"assistant": "output_text"}
"""The type of a text in a response, where it is not `input_text`."""


def request_body(sampling: SamplingSpec, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of the request for an item.

    Raises InvalidRequest if the item lacks what the messages refer to.
    """
    is_chat = sampling.url == "/v1/chat/completions"
    messages = _messages(sampling.input_messages, item, is_chat)
    body = {"model": sampling.model, **sampling.params}
    return body | ({"messages": messages} if is_chat else {"input": messages, "store": False})


def _messages(
    messages: InputMessages, item: Mapping[str, Any], is_chat: bool
) -> list[dict[str, Any]]:
    if isinstance(messages, ReferencedMessages):
        return _referenced(messages.item_reference, item)
    return [_rendered(message, item, is_chat) for message in messages.template]


def _referenced(reference: str, item: Mapping[str, Any]) -> list[dict[str, Any]]:
    value: Any = item
    for name in reference.split(".")[1:]:
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    is_list = isinstance(value, list) and bool(value)
    if not is_list or not all(isinstance(each, dict) for each in value):
        raise InvalidRequest(
            f"{reference} must be a list of messages, or a text; this item has none there.",
            param="input_messages.item_reference",
            code="invalid_item",
        )
    return [dict(each) for each in value]


def _rendered(message: GraderMessage, item: Mapping[str, Any], is_chat: bool) -> dict[str, Any]:
    content = message.content
    if isinstance(content, str):
        return {"role": message.role, "content": _filled(content, item)}
    parts: Sequence[str | dict[str, Any]] = [content] if isinstance(content, dict) else content
    text_type = "text" if is_chat else _TYPE_BY_ROLE.get(message.role, "input_text")
    filled = [_part(part, item, text_type) for part in parts]
    content_parts = [_of_chat(part) for part in filled] if is_chat else filled
    return {"role": message.role, "content": content_parts}


def _part(part: str | dict[str, Any], item: Mapping[str, Any], text_type: str) -> dict[str, Any]:
    """Return a part of a message. What is no text passes through, for external models."""
    match part:
        case str():
            return {"type": text_type, "text": _filled(part, item)}
        case {"type": kind, "text": str(text)} if kind in TEXT_PARTS:
            return {"type": text_type, "text": _filled(text, item)}
        case {"type": "input_image", "image_url": str(url)}:
            return {**part, "image_url": _filled(url, item)}
        case _:
            return dict(part)


def _of_chat(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part as chat completions have it, where images differ from those of responses."""
    if part.get("type") != "input_image":
        return part
    image = {"url": part["image_url"], "detail": part.get("detail", "auto")}
    return {"type": "image_url", "image_url": image}


def _filled(text: str, item: Mapping[str, Any]) -> str:
    try:
        return render(text, item)
    except GraderFailed as failure:
        raise InvalidRequest(
            failure.details, param="input_messages.template", code="invalid_item"
        ) from None
