"""How a chat template writes tool calls.

Every family has a way of its own. It is found by letting the template write a call whose name and
arguments are known. Templates that write calls as JSON objects are understood (Hermes and Qwen,
Llama 3, Mistral, and others like them).
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

from transformers import PreTrainedTokenizerFast

from core.batching.template import ChatTemplate, Message, Unrenderable
from core.batching.tool_calls import ToolCallFormat
from core.batching.turns import turn_of

_NAME, _KEY, _VALUE = "tunesmith_probe", "probe_key", "probe_value"
_ARGUMENTS = {_KEY: _VALUE}
_decoder = json.JSONDecoder()


def tool_call_format(tokenizer: PreTrainedTokenizerFast) -> ToolCallFormat | None:
    """Return how the tokenizer's chat template writes a call; None when that is not understood."""
    call = {
        "id": "call00000",
        "type": "function",
        "function": {"name": _NAME, "arguments": _ARGUMENTS},
    }
    tool = {"type": "function", "function": {"name": _NAME, "parameters": {"type": "object"}}}
    messages = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    )
    turn = _written(ChatTemplate(tokenizer), messages, (tool,))
    for start, character in enumerate(turn):
        if character in "[{":
            try:
                value, end = _decoder.raw_decode(turn, start)
            except ValueError:
                continue
            keys = _keys_of_call(value)
            if keys is not None:
                after = _without_end(turn[end:], tokenizer)
                return ToolCallFormat(turn[:start], after, *keys, _wrapping(value, keys[0]))
    return None


def _written(template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Message]) -> str:
    """Return the turn with the call; some templates show calls but no tools."""
    for offered in (tools, ()):
        try:
            return turn_of(template, messages, offered, 1).answer
        except Unrenderable:
            continue
    return ""


def _keys_of_call(value: Any) -> tuple[str, str] | None:
    """Return under which keys the probe's name and arguments stand, however deep."""
    if isinstance(value, list):
        return next((keys for each in value if (keys := _keys_of_call(each))), None)
    if not isinstance(value, dict):
        return None
    names = [key for key, each in value.items() if each == _NAME]
    held = [key for key, each in value.items() if each in (_ARGUMENTS, json.dumps(_ARGUMENTS))]
    if names and held:
        return names[0], held[0]
    return next((keys for each in value.values() if (keys := _keys_of_call(each))), None)


def _wrapping(value: Any, name_key: str) -> Literal["", "list", "deeper"]:
    if isinstance(value, dict) and name_key in value:
        return ""
    return "list" if isinstance(value, list) and name_key in value[0] else "deeper"


def _without_end(text: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """Take off the token that ends a turn."""
    for token in tokenizer.all_special_tokens:
        text = text.removesuffix(token)
    return text
