"""The answers that are graded: those of models, and those that the items of a run bring."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from core.grading.sample import Sample, sample_of_completion, sample_of_text


def sample_of_row(row: Mapping[str, Any]) -> Sample | None:
    """Return the answer that a checked row has; None if it has none."""
    given = row.get("sample")
    if given is None:
        return None
    text, choices = given.get("output_text"), given.get("choices")
    if isinstance(choices, list) and choices:
        sample = sample_of_completion(given)
        if text is None or text == sample.output_text:
            return sample
    sample = sample_of_text(text or "")
    tools = given.get("output_tools")
    if isinstance(tools, list):
        return Sample(sample.output_text, sample.output_json, tuple(tools), sample.choices)
    return sample


def sample_of_response(response: Mapping[str, Any]) -> Sample:
    """Return the sample of a response of /v1/responses, in the form of a chat completion."""
    return sample_of_completion(completion_of_response(response))


def completion_of_response(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return a response as a chat completion with one choice."""
    message: dict[str, Any] = {"role": "assistant", "content": output_text(response)}
    calls = [_call(item) for item in response["output"] if item.get("type") == "function_call"]
    if calls:
        message["tool_calls"] = calls
    is_cut = response.get("status") == "incomplete"
    reason = "length" if is_cut else "tool_calls" if calls else "stop"
    usage = response.get("usage") or {}
    cached = (usage.get("input_tokens_details") or {}).get("cached_tokens", 0)
    return {
        "model": response["model"],
        "choices": [{"index": 0, "finish_reason": reason, "message": message}],
        "usage": {
            "prompt_tokens": usage.get("input_tokens", 0),
            "completion_tokens": usage.get("output_tokens", 0),
            "total_tokens": usage.get("total_tokens", 0),
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


def output_text(response: Mapping[str, Any]) -> str:
    """Return the texts of a response, joined."""
    return "".join(
        part.get("text") or ""
        for item in response["output"]
        if item.get("type") == "message"
        for part in item["content"]
        if part.get("type") == "output_text"
    )


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return messages whose contents are texts, as the results of a run show them."""
    return [_plain(message) for message in messages]


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    plain: dict[str, Any] = {"role": str(message.get("role", "")), "content": _text(content)}
    for name in ("tool_calls", "tool_call_id"):
        if message.get(name) is not None:
            plain[name] = message[name]
    return plain


def _text(content: object) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        return "".join(
            part["text"]
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else json.dumps(part, ensure_ascii=False)
            for part in content
        )
    return json.dumps(content, ensure_ascii=False)


def _call(item: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}
