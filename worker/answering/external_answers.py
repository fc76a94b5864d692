"""The answers of external endpoints, as this service uses them: what is not needed is left out.

An endpoint is not trusted. Whatever it sends, what comes out can be stored, counted and graded.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

MOST_TOKENS = 10**12
"""Of a number of tokens; it is summed over the items of a run."""


class BadAnswer(ValueError):
    """An answer lacks what its readers use; the message says what, after the endpoint's name."""


def read_answer(url: str, content: bytes) -> dict[str, Any]:
    """Return the object of an answer; `url` is that of our route. Raises BadAnswer.

    Halves of surrogate pairs, which are no text, become `?`.
    """
    try:
        answer = _without_surrogates(json.loads(content, parse_constant=_refuse))
    except (ValueError, RecursionError):
        raise BadAnswer("answers without JSON") from None
    if not isinstance(answer, dict):
        raise BadAnswer("answers with something else than an object")
    try:
        return _ANSWERS[url].model_validate(answer).model_dump(exclude_none=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise BadAnswer(
            f"answers with an object that is no answer of {url}: {place}: {first['msg']}"
        ) from None


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity, which JSON does not have."""
    raise ValueError(constant)


def _without_surrogates(answer: Any) -> Any:
    text = json.dumps(answer, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.loads(text.encode(errors="replace"))
    return answer


def _count(value: object) -> int:
    """Return a number of tokens, which endpoints may leave out."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if is_count and isinstance(value, int) else 0


def _joined(content: object) -> object:
    """Return the texts of a content, which some services send in parts."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _mapping(value: object) -> object:
    return value if isinstance(value, Mapping) else {}


def _listed(parts: object) -> object:
    return [] if parts is None else parts


def _as_text(arguments: object) -> object:
    """Return the arguments of a call as JSON; some services send the object itself."""
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments


def _reason(reason: object) -> str:
    return reason[:64] if isinstance(reason, str) and reason else "stop"


def _name(name: object) -> str:
    return name[:255] if isinstance(name, str) else ""


Count = Annotated[int, BeforeValidator(_count)]
Arguments = Annotated[str, BeforeValidator(_as_text)]
Name = Annotated[str, BeforeValidator(_name)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class _Function(_Part):
    name: str
    arguments: Arguments


class _Call(_Part):
    id: str = ""
    type: Literal["function"] = "function"
    function: _Function


class _Message(_Part):
    role: Literal["assistant"] = "assistant"
    content: Annotated[str | None, BeforeValidator(_joined)] = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    """Of these three, a service uses one; a student is trained on it, too."""
    tool_calls: list[_Call] | None = None


class _Choice(_Part):
    index: Count = 0
    finish_reason: Annotated[str, BeforeValidator(_reason)] = "stop"
    message: _Message


class _PromptDetails(_Part):
    cached_tokens: Count = 0


class _ChatUsage(_Part):
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    total_tokens: Count = 0
    prompt_tokens_details: Annotated[_PromptDetails, BeforeValidator(_mapping)] = _PromptDetails()


class _Completion(_Part):
    model: Name = ""
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: Annotated[_ChatUsage, BeforeValidator(_mapping)] = _ChatUsage()


class _OutputPart(_Part):
    type: str
    text: str | None = None


class _Item(_Part):
    """An item of a response: what its type does not need may be missing."""

    type: str
    content: Annotated[list[_OutputPart], BeforeValidator(_listed)] = []
    name: str = ""
    arguments: Arguments = ""
    call_id: str = ""


class _ResponseUsage(_Part):
    input_tokens: Count = 0
    output_tokens: Count = 0
    total_tokens: Count = 0
    input_tokens_details: Annotated[_PromptDetails, BeforeValidator(_mapping)] = _PromptDetails()


class _Response(_Part):
    model: Name = ""
    status: str | None = None
    output: list[_Item]
    usage: Annotated[_ResponseUsage, BeforeValidator(_mapping)] = _ResponseUsage()


_ANSWERS: Mapping[str, type[BaseModel]] = {
    "/v1/chat/completions": _Completion,
    "/v1/responses": _Response,
}
