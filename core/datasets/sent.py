"""Messages of an example as a client sends them: the inverse of `core/datasets/chat.py`."""

import json
from collections.abc import Mapping
from typing import Any

from core.datasets.examples import ChatExample
from core.datasets.json_values import JsonObject


def trained_turns(example: ChatExample) -> list[int]:
    """Return the indices of the messages that are trained on."""
    return [
        index
        for index, message in enumerate(example.messages)
        if message["role"] == "assistant" and message.get("weight", 1)
    ]


def sent_message(message: Mapping[str, Any]) -> JsonObject:
    """Return a message in the clients' format: without a weight, arguments as text."""
    sent = {key: value for key, value in message.items() if key != "weight"}
    if calls := message.get("tool_calls"):
        sent["tool_calls"] = [{**call, "function": _with_text(call["function"])} for call in calls]
    return sent


def _with_text(function: Mapping[str, Any]) -> JsonObject:
    return {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}
