"""Rejects unsupported parameters that would change the answer, instead of ignoring them."""

from collections.abc import Mapping

from core.errors import InvalidRequest
from core.inference.schemas import (
    ChatBody,
    ChosenTool,
    CompletionBody,
    GenerationBody,
    JsonObjectFormat,
    JsonSchemaFormat,
    Prompt,
)
from core.spec.nearest import did_you_mean

_CHAT: Mapping[str, tuple[object, ...]] = {
    "modalities": (None, ["text"]),
    "audio": (None,),
    "moderation": (None,),
    "web_search_options": (None,),
}

_COMPLETION: Mapping[str, tuple[object, ...]] = {"suffix": (None, "")}


def check_chat(body: ChatBody) -> None:
    """Raise InvalidRequest for what cannot be served, or contradicts itself."""
    _require_neutral(body, _CHAT)
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest(
            "top_logprobs needs logprobs to be true.", param="top_logprobs", code="invalid_value"
        )
    _check_tool_choice(body)
    _check_ignore_eos(body)


def _check_tool_choice(body: ChatBody) -> None:
    """Check a choice as `core.inference.tools.with_tools` returns it."""
    if body.tool_choice in (None, "none", "auto"):
        return
    names = [tool.function.name for tool in body.tools or ()]
    chosen = body.tool_choice.function.name if isinstance(body.tool_choice, ChosenTool) else None
    if not names or (chosen is not None and chosen not in names):
        hint = "" if chosen is None else did_you_mean(chosen, names)
        raise InvalidRequest(
            f"tool_choice names a tool that is not in tools ({', '.join(names) or 'empty'}).{hint}",
            param="tool_choice",
            code="invalid_value",
        )
    if isinstance(body.response_format, JsonObjectFormat | JsonSchemaFormat):
        raise InvalidRequest(
            "tool_choice with a forced call and response_format exclude each other; use one.",
            param="tool_choice",
            code="contradictory_parameters",
        )


def _check_ignore_eos(body: ChatBody) -> None:
    is_json = isinstance(body.response_format, JsonObjectFormat | JsonSchemaFormat)
    is_forced = body.tool_choice == "required" or isinstance(body.tool_choice, ChosenTool)
    if body.ignore_eos and (is_json or is_forced):
        raise InvalidRequest(
            "Structured output ends when it is complete. Remove ignore_eos.",
            param="ignore_eos",
            code="contradictory_parameters",
        )


def check_completion(body: CompletionBody) -> None:
    """Raise InvalidRequest for what cannot be served, or contradicts itself."""
    _require_neutral(body, _COMPLETION)
    if body.best_of not in (None, body.n or 1):
        raise _unsupported("best_of", "best_of other than n")
    if body.echo and body.logprobs is None and not _is_text(body.prompt):
        raise _unsupported("echo", "echo of a prompt given as tokens, without logprobs,")
    if body.max_tokens == 0 and not body.echo:
        raise InvalidRequest(
            "max_tokens of 0 requires echo.",
            param="max_tokens",
            code="invalid_value",
        )


def _is_text(prompt: Prompt) -> bool:
    return isinstance(prompt, str) or isinstance(prompt[0], str)


def _require_neutral(body: GenerationBody, neutral: Mapping[str, tuple[object, ...]]) -> None:
    for name, values in neutral.items():
        if getattr(body, name) not in values:
            raise _unsupported(name, name)


def _unsupported(param: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{what} is not supported; remove it.", param=param, code="unsupported_parameter"
    )
