"""The answers of a teacher to one prompt, and which of them cannot be trained on."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from core.datasets.reasoning import REASONING_KEYS
from core.spec.base import Spec
from core.spec.distillation import CandidateStatus

LONGEST_MESSAGE = 2000
"""Characters of a reason that are kept."""

_SNAPSHOT = re.compile(r"(:.+|[-@]\d{4}[\d-]*|-latest)?", re.DOTALL)
"""What an endpoint may add to the name of a model: a tag, or a date."""


class Reason(Spec):
    """Why an answer, or a prompt, is failed or dropped."""

    code: str
    message: str


class Score(Spec):
    """What one grader says about an answer."""

    name: str
    score: float
    passed: bool
    error: str | None = None


class Candidate(Spec):
    """One answer. `number` counts from 0 within its prompt."""

    number: int
    status: CandidateStatus
    reason: Reason | None = None
    message: dict[str, Any] | None = None
    """As it is trained on; None without an answer."""
    finish_reason: str | None = None
    model: str | None = None
    """The name that the answer has."""
    scores: tuple[Score, ...] = ()
    score: float | None = None
    """The mean of all scores, by which the best answers are chosen."""


class Answered(Spec):
    """A prompt with its answers; `reason` if it could not be asked."""

    item: dict[str, Any]
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    candidates: tuple[Candidate, ...] = ()
    reason: Reason | None = None

    @property
    def status(self) -> CandidateStatus:
        statuses = {each.status for each in self.candidates}
        order: tuple[CandidateStatus, ...] = ("answered", "kept", "dropped")
        return next((each for each in order if each in statuses), "failed")

    @property
    def why(self) -> Reason | None:
        """Return why no answer is kept: the reason of the first one with the prompt's status."""
        if self.status in ("answered", "kept"):
            return None
        reasons = (each.reason for each in self.candidates if each.status == self.status)
        return next(reasons, self.reason)


def reason(code: str, message: str) -> Reason:
    return Reason(code=code, message=message[:LONGEST_MESSAGE])


def unanswered(number: int, code: str | None, message: str) -> Candidate:
    """Return the candidate of a request that failed."""
    why = reason(code or "teacher_failed", message)
    return Candidate(number=number, status="failed", reason=why)


def candidate_of(
    number: int,
    completion: Mapping[str, Any],
    names: Sequence[str],
    tools: Sequence[Mapping[str, Any]],
) -> Candidate:
    """Return the first choice of a chat completion, failed if it cannot be trained on.

    `names` are those that the teacher may have in answers; none: any. `tools` were offered.
    """
    choice = completion["choices"][0]
    model, finish = completion.get("model"), choice.get("finish_reason")
    message, fault = _message(choice["message"], tools)
    why = _wrong_model(model, names) or _unfinished(finish) or fault
    return Candidate(
        number=number,
        status="failed" if why else "answered",
        reason=why,
        message=message,
        finish_reason=finish if isinstance(finish, str) else None,
        model=model if isinstance(model, str) else None,
    )


def is_name_of(answered: str, name: str) -> bool:
    """Return whether an answer's model may be the one that was asked: `gpt-x-2026-01-31` for
    `gpt-x`, but not `gpt-x-mini`. What precedes a slash does not count."""
    given, wanted = (each.rsplit("/", 1)[-1].casefold() for each in (answered, name))
    return given.startswith(wanted) and bool(_SNAPSHOT.fullmatch(given[len(wanted) :]))


def _wrong_model(model: object, names: Sequence[str]) -> Reason | None:
    if not names or not isinstance(model, str) or not model:
        return None
    if any(is_name_of(model, name) for name in names):
        return None
    return reason(
        "wrong_model",
        f"The answer is of {model!r}, not of {names[0]!r}. If both are the same model, add the "
        "name to teacher_names.",
    )


def _unfinished(finish: object) -> Reason | None:
    match finish:
        case "length":
            return reason("truncated", "The answer was cut at the maximum number of tokens.")
        case "content_filter":
            return reason("content_filter", "The answer was withheld by a content filter.")
        case _:
            return None


def _message(
    given: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], Reason | None]:
    """Return an answer as a row has it, and why it cannot be trained on."""
    text = given.get("content") or ""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    for key in REASONING_KEYS:
        if isinstance(given.get(key), str) and given[key]:
            message[key] = given[key]
    if given.get("refusal") and not text:
        return message, reason("refusal", f"The teacher refuses: {given['refusal']}")
    calls = given.get("tool_calls")
    if calls:
        message["tool_calls"], fault = _calls(calls, tools)
        return message, None if fault is None else reason("invalid_tool_calls", fault)
    if not text.strip():
        return message, reason("empty_answer", "The answer has neither text nor tool calls.")
    return message, None


def _calls(calls: Any, tools: Sequence[Mapping[str, Any]]) -> tuple[list[Any], str | None]:
    """Return tool calls with their arguments as text, and what is wrong with the first one."""
    if not isinstance(calls, list):
        return [], "tool_calls is not a list."
    offered = [tool["function"]["name"] for tool in tools if "function" in tool]
    found: list[Any] = []
    fault: str | None = None
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            return found, fault or "A tool call has no function."
        name, arguments = function.get("name"), function.get("arguments")
        if isinstance(arguments, dict):  # as some services answer
            arguments = json.dumps(arguments, ensure_ascii=False)
        found.append(
            {
                "id": str(call.get("id") or f"call_{len(found)}"),
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
        )
        fault = fault or _fault(name, arguments, offered)
    return found, fault


def _fault(name: object, arguments: object, offered: Sequence[str]) -> str | None:
    if name not in offered:
        return f"The tool {name!r} is called, which was not offered."
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else None
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        return f"The arguments of {name!r} are no JSON object: {str(arguments)[:200]}"
    return None
