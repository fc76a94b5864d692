"""Parameters that would change the answer and are not served: refused, never ignored."""

from collections.abc import Mapping
from typing import Any

from api.generation.schemas import ChatBody, CompletionBody, GenerationBody
from core.errors import InvalidRequest

_BOTH: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
}

_CHAT: Mapping[str, tuple[Any, ...]] = {
    **_BOTH,
    "response_format": (None, {"type": "text"}),
    "tool_choice": (None, "auto", "none"),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "moderation": (None,),
    "web_search_options": (None,),
    "functions": (None, []),
    "function_call": (None, "auto", "none"),
    "reasoning_effort": (None, "none"),
    "verbosity": (None, "medium"),
}

_COMPLETION: Mapping[str, tuple[Any, ...]] = {**_BOTH, "suffix": (None, "")}


def check_chat(body: ChatBody) -> None:
    """Raise InvalidRequest for what cannot be served, or contradicts itself."""
    _require_neutral(body, _CHAT)
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest(
            "top_logprobs needs logprobs to be true.", param="top_logprobs", code="invalid_value"
        )
    if None not in (body.max_tokens, body.max_completion_tokens):
        raise InvalidRequest(
            "max_tokens is the old name of max_completion_tokens; give only one of them.",
            param="max_tokens",
            code="contradictory_parameters",
        )


def check_completion(body: CompletionBody) -> None:
    """Raise InvalidRequest for what cannot be served, or contradicts itself."""
    _require_neutral(body, _COMPLETION)
    if body.best_of not in (None, body.n or 1):
        raise _unsupported("best_of", "best_of other than n")
    if body.echo and body.logprobs is not None:
        raise _unsupported("echo", "echo together with logprobs")
    if body.echo and not _is_text(body.prompt):
        raise _unsupported("echo", "echo of a prompt given as tokens")


def _is_text(prompt: Any) -> bool:
    return isinstance(prompt, str) or isinstance(prompt[0], str)


def _require_neutral(body: GenerationBody, neutral: Mapping[str, tuple[Any, ...]]) -> None:
    for name, values in neutral.items():
        if getattr(body, name) not in values:
            raise _unsupported(name, name)


def _unsupported(param: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{what} is not supported; leave it out.", param=param, code="unsupported_parameter"
    )
