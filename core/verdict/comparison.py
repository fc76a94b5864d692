"""Scores of several models over the same rows, and the differences of all pairs."""

from collections.abc import Sequence
from itertools import combinations

from core.spec.comparison import (
    ComparedAnswer,
    ComparedItem,
    ComparisonResult,
    Difference,
    ModelScores,
)
from core.verdict.labels import macro_f1
from core.verdict.metrics import Pair, Scored, compared


def compared_answer(scored: Scored) -> ComparedAnswer:
    return ComparedAnswer(
        answer=scored.answer, scores=dict(scored.values), problems=dict(scored.problems)
    )


def comparison_of(models: Sequence[str], items: Sequence[ComparedItem]) -> ComparisonResult:
    """Return the table of a comparison; each later model is compared with each earlier one."""
    return ComparisonResult(
        models=tuple(_scores(model, index, items) for index, model in enumerate(models)),
        differences=tuple(
            Difference(
                model=models[other],
                than=models[one],
                metrics=compared([_pair(item, one, other) for item in items]),
            )
            for one, other in combinations(range(len(models)), 2)
        ),
    )


def _scores(model: str, index: int, items: Sequence[ComparedItem]) -> ModelScores:
    answered = [item for item in items if item.answers[index].answer.error is None]
    names = dict.fromkeys(name for item in answered for name in item.answers[index].scores)
    scores = {
        name: _mean([item.answers[index].scores.get(name) for item in answered]) for name in names
    }
    labelled = [item for item in answered if item.question.labels is not None]
    if labelled:
        truth = [item.question.labels or () for item in labelled]
        chosen = [item.answers[index].answer.labels or () for item in labelled]
        scores["macro_f1"] = macro_f1(truth, chosen)
    return ModelScores(model=model, scores=scores, rows=len(answered))


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def _pair(item: ComparedItem, one: int, other: int) -> Pair:
    return Pair(item.question, _scored(item.answers[one]), _scored(item.answers[other]))


def _scored(answer: ComparedAnswer) -> Scored:
    return Scored(answer.answer, answer.scores, answer.problems)
