"""Metrics of two models over the same rows, with intervals of their differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.spec.held_out import Question
from core.spec.verdict import Answer, Metric
from core.verdict.bootstrap import mean_interval, statistic_interval
from core.verdict.labels import Labels, macro_f1

Values = Mapping[str, float | None]
"""The scores of one answer by metric; None if one could not be measured."""


@dataclass(frozen=True)
class Scored:
    """An answer with its scores. `problems` says by metric why there is none."""

    answer: Answer
    values: Values = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    def without(self, names: Sequence[str], problem: str) -> "Scored":
        """Return the same, with the metrics `names` not measured."""
        if self.answer.error is not None:
            return self
        values = {**self.values, **dict.fromkeys(names)}
        return Scored(self.answer, values, {**self.problems, **dict.fromkeys(names, problem)})


@dataclass(frozen=True)
class Pair:
    """The answers of two models to one question."""

    question: Question
    base: Scored
    tuned: Scored

    @property
    def is_complete(self) -> bool:
        return self.base.answer.error is None and self.tuned.answer.error is None


def compared(pairs: Sequence[Pair]) -> tuple[Metric, ...]:
    """Return every metric that any row has, in the order of their first rows."""
    complete = [pair for pair in pairs if pair.is_complete]
    names = dict.fromkeys(
        name for pair in complete for each in (pair.base, pair.tuned) for name in each.values
    )
    found = [_of_scores(name, complete) for name in names]
    labelled = [pair for pair in complete if pair.question.labels is not None]
    return (*found, _of_labels(labelled)) if labelled else tuple(found)


def chosen_labels(scored: Scored) -> Labels:
    return scored.answer.labels or ()


def _of_scores(name: str, pairs: Sequence[Pair]) -> Metric:
    having = [pair for pair in pairs if name in pair.base.values or name in pair.tuned.values]
    both = [
        (base, tuned)
        for pair in having
        for base, tuned in [(pair.base.values.get(name), pair.tuned.values.get(name))]
        if base is not None and tuned is not None
    ]
    problem = next(
        (
            each.problems[name]
            for pair in having
            for each in (pair.tuned, pair.base)
            if name in each.problems
        ),
        None,
    )
    if lacking := len(having) - len(both):
        problem = f"not measured on {lacking} of {len(having)} rows: {problem}"
    if not both:
        return Metric(name=name, missing=problem)
    differences = [tuned - base for base, tuned in both]
    return Metric(
        name=name,
        base=sum(base for base, _ in both) / len(both),
        tuned=sum(tuned for _, tuned in both) / len(both),
        difference=sum(differences) / len(both),
        interval=mean_interval(differences),
        rows=len(both),
        missing=problem if lacking else None,
    )


def _of_labels(pairs: Sequence[Pair]) -> Metric:
    """Return macro-F1, which is not a mean over rows: it is computed again for every resample."""
    truth = [pair.question.labels or () for pair in pairs]
    base = [chosen_labels(pair.base) for pair in pairs]
    tuned = [chosen_labels(pair.tuned) for pair in pairs]

    def difference(indices: Sequence[int]) -> float:
        drawn = [truth[index] for index in indices]
        return macro_f1(drawn, [tuned[index] for index in indices]) - macro_f1(
            drawn, [base[index] for index in indices]
        )

    of_base, of_tuned = macro_f1(truth, base), macro_f1(truth, tuned)
    return Metric(
        name="macro_f1",
        base=of_base,
        tuned=of_tuned,
        difference=of_tuned - of_base,
        interval=statistic_interval(len(pairs), difference),
        rows=len(pairs),
    )
