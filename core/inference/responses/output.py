"""The objects of a response: its states, the items of its output, and its usage."""

import time
from collections.abc import Sequence
from typing import Any, Literal

from core.errors import InvalidRequest, TunesmithError
from core.inference.chat import LEAST_LOGPROB
from core.inference.responses.items import Item
from core.spec.generation import (
    ChoiceFinished,
    GeneratedToken,
    GenerationStarted,
    TokenLogprob,
)
from core.spec.response import ResponsePlan

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

FINAL: frozenset[str] = frozenset({"completed", "incomplete", "failed", "cancelled"})

_OVERLOAD = ("rate_limit_exceeded", "queue_full")
"""Codes of errors that mean that all engines are full."""


def response_object(
    plan: ResponsePlan,
    status: Status,
    output: Sequence[Item] = (),
    *,
    usage: dict[str, Any] | None = None,
    error: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return OpenAI's object. `usage` is left out until it is known: clients do not expect null."""
    response = {
        **plan.frame,
        "status": status,
        "completed_at": int(time.time()) if status == "completed" else None,
        "error": error,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "output": list(output),
    }
    return response if usage is None else response | {"usage": usage}


def failure_of(error: TunesmithError) -> dict[str, str]:
    """Return the `error` of a failed response."""
    code = "invalid_prompt" if isinstance(error, InvalidRequest) else "server_error"
    code = "rate_limit_exceeded" if error.code in _OVERLOAD else code
    return {"code": code, "message": error.message}


def usage_object(
    started: GenerationStarted | None, finished: ChoiceFinished | None
) -> dict[str, Any]:
    input_tokens = started.prompt_tokens if started else 0
    output_tokens = finished.completion_tokens if finished else 0
    reasoning_tokens = finished.reasoning_tokens if finished else 0
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": input_tokens + output_tokens,
    }


def item_id(plan: ResponsePlan, prefix: str, index: int) -> str:
    """Return the id of an output item; equal in each attempt of a background task."""
    return f"{prefix}_{plan.id.removeprefix('resp_')}{index:02d}"


def text_part(text: str, logprobs: Sequence[GeneratedToken]) -> Item:
    return {
        "type": "output_text",
        "text": text,
        "annotations": [],
        "logprobs": logprobs_of(logprobs),
    }


def logprobs_of(tokens: Sequence[GeneratedToken]) -> list[dict[str, Any]]:
    return [
        {**_token(token), "top_logprobs": [_token(other) for other in token.top]}
        for token in tokens
    ]


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.token,
        "logprob": max(token.logprob, LEAST_LOGPROB),
        "bytes": list(token.bytes),
    }
