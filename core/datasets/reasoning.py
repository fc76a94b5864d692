"""What an assistant thought before its answer, under one key whatever the source calls it.

It comes as `reasoning_content` (DeepSeek, vLLM), `reasoning` (OpenRouter, newer vLLM), `thinking`
(gpt-oss), as parts of the content, or as a `<think>` block with which the content begins; the tag
that opens the block may be missing, since many prompts write it. It leaves as the message's
`reasoning_content`; how a chat template shows it is for the template to say.
"""

import re

from core.datasets.faults import Faults
from core.datasets.json_values import JsonObject

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""The first one that holds a text is taken."""

_BLOCK = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)
_CLOSED_ONLY = re.compile(r"((?:(?!<think>).)*?\n)</think>(?=\r?\n|\Z)", re.DOTALL)
"""What a model wrote whose prompt had opened the block; the tag stands in a line of its own."""


def assistant_message(content: str, reasoning: str | None = None) -> JsonObject:
    """Return an assistant's message; without `reasoning`, that of a block in the content."""
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


def given_reasoning(message: JsonObject, where: str, faults: Faults) -> str | None:
    """Return the reasoning under a key of the message; what stands under the others is unused."""
    taken: str | None = None
    for key in REASONING_KEYS:
        if key not in message:
            continue
        value = message[key]
        if taken is None and (isinstance(value, str) or key == "reasoning_content"):
            taken = faults.text(message, key, where, empty=True)
        elif value != taken:
            faults.pass_over(key, where)
    return taken
