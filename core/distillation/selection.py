"""Which answers are kept: those that pass, and of these the best of each prompt."""

import json
from collections.abc import Mapping, Sequence
from statistics import fmean

from core.distillation.candidates import Answered, Candidate, Reason, Score, reason
from core.grading.result import reaches
from core.spec.distillation import FilterSpec


def graded(candidate: Candidate, scores: Sequence[Score], filter_: FilterSpec) -> Candidate:
    """Return an answer with its scores, dropped if it does not pass."""
    mean = fmean(each.score for each in scores) if scores else None
    why = _failing(scores) or _below(mean, filter_)
    return candidate.model_copy(
        update={
            "scores": tuple(scores),
            "score": mean,
            "reason": why,
            "status": "dropped" if why else candidate.status,
        }
    )


def dropped(candidate: Candidate, why: Reason) -> Candidate:
    return candidate.model_copy(update={"status": "dropped", "reason": why})


def with_best(prompt: Answered, filter_: FilterSpec) -> Answered:
    """Return a prompt of which the best answers that are left are kept, and the others dropped.

    Of equal scores, the earlier answer is better. Of equal answers, one is kept.
    """
    passing = [each for each in prompt.candidates if each.status == "answered"]
    ranked = sorted(passing, key=lambda each: (-(each.score or 0.0), each.number))
    outcome: dict[int, Candidate] = {}
    seen: set[str] = set()
    kept = 0
    for each in ranked:
        text = json.dumps(_content(each), sort_keys=True)
        if kept == filter_.keep:
            better = reason("not_best", f"{kept} better answers of the prompt are kept.")
            outcome[each.number] = dropped(each, better)
        elif text in seen:
            same = reason("duplicate", "An answer that is kept is the same.")
            outcome[each.number] = dropped(each, same)
        else:
            outcome[each.number] = each.model_copy(update={"status": "kept"})
            kept += 1
        seen.add(text)
    candidates = tuple(outcome.get(each.number, each) for each in prompt.candidates)
    return prompt.model_copy(update={"candidates": candidates})


def _content(candidate: Candidate) -> object:
    """Return what makes an answer different from others: ids of calls do not."""
    message: Mapping[str, object] = candidate.message or {}
    calls = message.get("tool_calls")
    functions = [call["function"] for call in calls] if isinstance(calls, list) else []
    return [message.get("content"), functions]


def _failing(scores: Sequence[Score]) -> Reason | None:
    for each in scores:
        if each.error is not None:
            return reason("grader_error", f"The grader {each.name!r} failed: {each.error}")
    for each in scores:
        if not each.passed:
            text = f"The answer does not pass {each.name!r}: its score is {each.score:.4g}."
            return reason(f"grader:{each.name}", text)
    return None


def _below(mean: float | None, filter_: FilterSpec) -> Reason | None:
    threshold = filter_.pass_threshold
    if threshold is None or mean is None or reaches(mean, threshold):
        return None
    text = f"The mean score {mean:.4g} is below the threshold {threshold:.4g}."
    return reason("below_threshold", text)
