"""Judges a tuned model from the figures of its run and the answers of both models."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.catalog.objectives import OBJECTIVES
from core.spec.held_out import Figures, HeldOutFacts, perplexity
from core.spec.job import JobSpec
from core.spec.verdict import (
    HeldOut,
    JudgedSample,
    LossFigures,
    Metric,
    PromptAnswers,
    Scores,
    Verdict,
    VerdictStatus,
)
from core.verdict.labels import by_label, confusion
from core.verdict.metrics import Pair, chosen_labels, compared
from core.verdict.overfitting import overfitting_of
from core.verdict.requirements import outcomes

SAME_LOSS = 0.01
"""A loss that differs by a smaller share is neither better nor worse."""
SHOWN_METRICS = 3

NO_ROWS = (
    "No rows are held out, so nothing shows what the model has learned beyond its training rows. "
    "Set evaluation.split, or send a validation_file."
)


@dataclass(frozen=True)
class Collected:
    """The answers that a worker has collected."""

    pairs: Sequence[Pair] = ()
    prompts: Sequence[PromptAnswers] = ()
    missing: Sequence[str] = ()
    """What could not be measured, as sentences."""
    seconds: float = 0.0


def judge(spec: JobSpec, facts: HeldOutFacts, compared_with: str, collected: Collected) -> Verdict:
    """Return the verdict.

    `worse` if some metric of the answers is worse, which means that its interval is below 0;
    `better` if some is better and none worse; `no_worse` if none differs. Without intervals, the
    held-out loss decides, if it differs by more than 1 %.
    """
    pairs = collected.pairs
    complete = [pair for pair in pairs if pair.is_complete]
    metrics = compared(pairs)
    held_out = _held_out(spec, facts)
    missing = (*_missing(facts), *collected.missing, *_lacking(metrics))
    status = _status(metrics, held_out)
    labelled = [pair for pair in complete if pair.question.labels is not None]
    truth = [pair.question.labels or () for pair in labelled]
    chosen = [chosen_labels(pair.tuned) for pair in labelled]
    return Verdict(
        status=status,
        sentence=_sentence(status, compared_with, metrics, held_out, missing),
        compared_with=compared_with,
        held_out=held_out,
        metrics=metrics,
        confusion=confusion(truth, chosen),
        by_label=by_label(truth, chosen),
        overfitting=overfitting_of(facts.curve),
        samples=tuple(map(_sample, pairs)),
        prompts=tuple(collected.prompts),
        requirements=outcomes(spec.evaluation.require, held_out, metrics, missing),
        missing=missing,
        seconds=collected.seconds,
    )


def _missing(facts: HeldOutFacts) -> list[str]:
    """Return what the run itself did not measure."""
    if not facts.rows:
        return [NO_ROWS]
    found = []
    if facts.base is None:
        found.append(f"The held-out loss of the base was not measured: {facts.base_missing}.")
    if facts.omitted:
        found.append(
            f"{facts.omitted:,} of the chosen held-out rows were not asked: they have no answer to "
            "compare with, or are too long."
        )
    return found


def _lacking(metrics: Sequence[Metric]) -> list[str]:
    return [f"{each.name} was {each.missing}." for each in metrics if each.missing is not None]


def _held_out(spec: JobSpec, facts: HeldOutFacts) -> HeldOut:
    by_tokens = OBJECTIVES[spec.objective.type].target == "tokens"

    def of(figures: Figures | None) -> LossFigures | None:
        if figures is None:
            return None
        return LossFigures(
            loss=figures.loss,
            perplexity=perplexity(figures.loss) if by_tokens else None,
            accuracy=figures.accuracy,
        )

    return HeldOut(rows=facts.rows, source=facts.source, base=of(facts.base), tuned=of(facts.tuned))


def _status(metrics: Sequence[Metric], held_out: HeldOut) -> VerdictStatus:
    intervals = [each.interval for each in metrics if each.interval is not None]
    if intervals:
        if any(high < 0 for _, high in intervals):
            return "worse"
        return "better" if any(low > 0 for low, _ in intervals) else "no_worse"
    if held_out.base is None or held_out.tuned is None:
        return "unjudged"
    base, tuned = held_out.base.loss, held_out.tuned.loss
    if abs(tuned - base) <= SAME_LOSS * abs(base):
        return "no_worse"
    return "better" if tuned < base else "worse"


_WORDS: dict[VerdictStatus, str] = {
    "better": "Better than {}",
    "no_worse": "No worse than {}, and not shown to be better",
    "worse": "Worse than {}",
    "unjudged": "Not judged against {}",
}


def _sentence(
    status: VerdictStatus,
    compared_with: str,
    metrics: Sequence[Metric],
    held_out: HeldOut,
    missing: Sequence[str],
) -> str:
    """Return one sentence with the figures that matter; without any, what is missing."""
    shown = sorted(metrics, key=lambda each: each.interval is None)[:SHOWN_METRICS]
    parts = [_words_of(each) for each in shown if each.tuned is not None]
    if held_out.tuned is not None:
        loss = f"held-out loss {held_out.tuned.loss:.3g}"
        if held_out.base is not None:
            loss += f" against {held_out.base.loss:.3g}"
        parts.append(f"{loss} ({held_out.rows:,} rows)")
    verdict = _WORDS[status].format(compared_with)
    if not parts:
        return f"{verdict}. {missing[0]}" if missing else f"{verdict}."
    return f"{verdict} on held-out rows: {'; '.join(parts)}."


def _words_of(metric: Metric) -> str:
    text = f"{metric.name} {metric.tuned:.3g} against {metric.base:.3g}"
    details = [f"{metric.difference:+.3g}"]
    if metric.interval is not None:
        low, high = metric.interval
        details.append(f"95 % interval {low:+.3g} to {high:+.3g}")
    return f"{text} ({', '.join(details)}, {metric.rows} rows)"


def _sample(pair: Pair) -> JudgedSample:
    question = pair.question
    names = dict.fromkeys([*pair.base.values, *pair.tuned.values])
    return JudgedSample(
        line=question.line,
        messages=question.messages,
        text=question.text,
        reference=question.reference,
        tool_calls=question.tool_calls,
        labels=question.labels,
        base=pair.base.answer,
        tuned=pair.tuned.answer,
        scores={
            name: Scores(base=pair.base.values.get(name), tuned=pair.tuned.values.get(name))
            for name in names
        },
    )
