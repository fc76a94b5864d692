"""The result of one item, in the form in which it is stored and OpenAI shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import TunesmithError
from core.evals.samples import plain_messages
from core.grading.result import Grade
from core.grading.sample import Sample
from core.records.eval_progress import ItemResult
from core.records.model_usage import ModelUsage
from core.spec.evals import ItemStatus
from core.spec.grader import Grader

LONGEST_MESSAGE = 2000
"""Characters of the message of an error that is kept with an item."""


@dataclass(frozen=True)
class Sampled:
    """An answer with its request; of an item that brings its answer, the request is empty."""

    sample: Sample
    messages: Sequence[Mapping[str, Any]] = ()
    params: Mapping[str, Any] | None = None
    completion: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Criterion:
    """A testing criterion and its name in results."""

    grader: Grader
    name: str


def graded_item(
    number: int,
    item: Mapping[str, Any],
    sampled: Sampled,
    criteria: Sequence[Criterion],
    grades: Sequence[Grade],
    usage: Sequence[ModelUsage],
) -> ItemResult:
    """Return the result of an item whose answer is graded by every criterion."""
    has_error = any(grade.errors for grade in grades)
    passes = all(grade.passed for grade in grades)
    status: ItemStatus = "error" if has_error else "pass" if passes else "fail"
    results = [_result(each, grade) for each, grade in zip(criteria, grades, strict=True)]
    passed = [None if grade.errors else grade.passed for grade in grades]
    return ItemResult(number, status, passed, usage, _body(item, results, _sample(sampled, None)))


def errored_item(
    number: int,
    item: Mapping[str, Any],
    messages: Sequence[Mapping[str, Any]],
    params: Mapping[str, Any] | None,
    error: TunesmithError,
    criteria: Sequence[Criterion],
    usage: Sequence[ModelUsage] = (),
) -> ItemResult:
    """Return the result of an item without an answer."""
    shown = {"code": error.code, "message": error.message[:LONGEST_MESSAGE]}
    sample = _sample(Sampled(Sample(""), messages, params), shown)
    passed = [None] * len(criteria)
    return ItemResult(number, "error", passed, usage, _body(item, [], sample))


def usage_of(completion: Mapping[str, Any]) -> ModelUsage:
    """Return the usage of one chat completion; tokens from a cache count as 0 if unknown."""
    usage = completion.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, Mapping) else None
    prompt, written = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    return ModelUsage(
        model_name=str(completion.get("model") or ""),
        invocation_count=1,
        prompt_tokens=prompt,
        completion_tokens=written,
        total_tokens=_count(usage, "total_tokens") or prompt + written,
        cached_tokens=_count(details, "cached_tokens"),
    )


def _count(usage: Any, name: str) -> int:
    """Return a number of tokens, which external models may leave out."""
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and value >= 0 else 0


def _body(
    item: Mapping[str, Any], results: list[dict[str, Any]], sample: dict[str, Any]
) -> dict[str, Any]:
    return {"datasource_item": item, "results": results, "sample": sample}


def _result(criterion: Criterion, grade: Grade) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": criterion.name,
        "type": criterion.grader.type,
        "score": grade.score,
        "passed": grade.passed and not grade.errors,
        "sample": _judged(grade.completions[0]) if grade.completions else None,
    }
    if grade.sub_scores:
        result["sub_scores"] = grade.sub_scores
    if grade.errors:
        flags = [name for name, value in grade.errors.items() if value is True]
        details = grade.errors.get("details") or ""
        result["error"] = {"code": (flags or ["other_error"])[0], "message": details}
    return result


def _judged(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer of a model grader, with its prompt."""
    completion = asked["completion"]
    choice = completion["choices"][0]
    return {
        "input": plain_messages(asked["messages"]),
        "output": plain_messages([choice["message"]]),
        "finish_reason": choice["finish_reason"],
        "model": completion["model"],
        "usage": _shown_usage(completion),
    }


def _sample(sampled: Sampled, error: dict[str, str] | None) -> dict[str, Any]:
    """Return OpenAI's `sample`; what is not known is null."""
    params, completion = sampled.params or {}, sampled.completion or {}
    message = sampled.sample.choices[0]["message"] if sampled.sample.choices else None
    choice = sampled.sample.choices[0] if sampled.sample.choices else {}
    return {
        "input": plain_messages(sampled.messages),
        "output": [] if message is None else plain_messages([{"role": "assistant", **message}]),
        "finish_reason": choice.get("finish_reason"),
        "model": completion.get("model") or params.get("model"),
        "usage": _shown_usage(completion),
        "error": error,
        "temperature": params.get("temperature"),
        "max_completion_tokens": params.get("max_completion_tokens")
        or params.get("max_output_tokens"),
        "top_p": params.get("top_p"),
        "seed": params.get("seed"),
    }


def _shown_usage(completion: Mapping[str, Any]) -> dict[str, int]:
    usage = usage_of(completion)
    names = ("total_tokens", "completion_tokens", "prompt_tokens", "cached_tokens")
    return {name: usage[name] for name in names}  # type: ignore[literal-required]
