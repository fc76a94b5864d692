"""Puts the reasoning before an answer under one key, `reasoning_content`, whatever its source.

Sources write `reasoning_content` (DeepSeek, vLLM), `reasoning` (OpenRouter, newer vLLM), `thinking`
(gpt-oss), parts of the content, or a `<think>` block at the start of the content. The opening tag
may be missing, because many prompts end with it. The chat template decides how to render the
reasoning.
"""

import re

from core.datasets.json_values import JsonObject
from core.datasets.row_errors import RowErrors

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""In order of precedence: the first key with text is used."""

_BLOCK = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)
_CLOSED_ONLY = re.compile(r"((?:(?!<think>).)*?\n)</think>(?=\r?\n|\Z)", re.DOTALL)
"""The answer to a prompt that ends with the opening tag; the closing tag is on its own line."""


def assistant_message(content: str, reasoning: str | None = None) -> JsonObject:
    """Return an assistant message; `reasoning` defaults to a `<think>` block of the content."""
    if reasoning is None and "</think>" in content:
        block = _BLOCK.match(content) or _CLOSED_ONLY.match(content)
    else:
        block = None
    if block:
        reasoning = block[1]
        content = content[block.end() :].lstrip("\r\n")
    message = {"role": "assistant", "content": content}
    if reasoning is not None:
        message["reasoning_content"] = reasoning.strip("\r\n")
    return message


def given_reasoning(message: JsonObject, where: str, errors: RowErrors) -> str | None:
    """Return the reasoning under the first of `REASONING_KEYS`; the other keys are ignored."""
    taken: str | None = None
    for key in REASONING_KEYS:
        if key not in message:
            continue
        value = message[key]
        if taken is None and (isinstance(value, str) or key == "reasoning_content"):
            taken = errors.text(message, key, where, empty=True)
        elif value != taken:
            errors.ignore(key, where)
    return taken
