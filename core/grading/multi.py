"""A formula over the scores of several graders."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from core.grading.formula import InvalidFormula, read_formula
from core.grading.judges import Judges
from core.grading.result import Grade, GraderFailed, errors_of, reaches
from core.grading.sample import Sample
from core.spec.grader import Grader, MultiGrader

DEFAULT_THRESHOLD = 1.0

GradeOne = Callable[[Grader, Mapping[str, Any], Sample, Judges], Awaitable[Grade]]


async def grade_multi(
    grader: MultiGrader,
    item: Mapping[str, Any],
    sample: Sample,
    judges: Judges,
    grade_one: GradeOne,
) -> Grade:
    """Grade with all graders at once, then compute the formula.

    An error of one of them is an error of the whole: with a score of 0 for it, a formula such as
    `1 - toxicity` would reward the error. Raises GraderFailed for a formula that cannot be read.
    """
    try:
        formula = read_formula(grader.calculate_output)
    except InvalidFormula as error:
        raise GraderFailed("formula_parse_error", f"calculate_output is wrong: {error}") from None
    if unknown := formula.names - grader.graders.keys():
        raise GraderFailed(
            "formula_parse_error",
            f"calculate_output names {', '.join(sorted(unknown))}, which is none of the graders.",
        )
    grades = await _all(
        {key: grade_one(each, item, sample, judges) for key, each in grader.graders.items()}
    )
    whole = _whole(grades)
    if whole.errors:
        return whole
    try:
        score = formula.value(whole.sub_scores)
    except InvalidFormula as error:
        details = f"calculate_output has no value: {error}"
        return replace(whole, errors=errors_of(GraderFailed("other_error", details)))
    threshold = DEFAULT_THRESHOLD if grader.pass_threshold is None else grader.pass_threshold
    return replace(whole, score=score, passed=reaches(score, threshold))


async def _all(running: Mapping[str, Awaitable[Grade]]) -> dict[str, Grade]:
    """Return the grades by key. An exception ends all of them."""
    tasks = [asyncio.ensure_future(each) for each in running.values()]
    try:
        return dict(zip(running, await asyncio.gather(*tasks), strict=True))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _whole(grades: Mapping[str, Grade]) -> Grade:
    """Return all that the graders gave but the score; each error has the key of its grader."""
    errors: dict[str, bool | str | None] = {}
    details: list[str] = []
    tokens: dict[str, int] = {}
    for key, each in grades.items():
        for model, count in each.tokens_by_model.items():
            tokens[model] = tokens.get(model, 0) + count
        if each.errors:
            errors |= each.errors
            details.append(f"{key}: {each.errors['details']}")
    if details:
        errors["details"] = "\n".join(details)
    models = [each.sampled_model for each in grades.values() if each.sampled_model is not None]
    return Grade(
        0.0,
        False,
        errors,
        sub_scores={key: each.score for key, each in grades.items()},
        tokens_by_model=tokens,
        sampled_model=models[0] if models else None,
        completions=tuple(answer for each in grades.values() for answer in each.completions),
    )
