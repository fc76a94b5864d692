"""What the owner of a sweep reads about its trials."""

from collections.abc import Sequence

from core.records.sweep_progress import TrialJob
from core.records.trials import results_of
from core.spec.sweep import FIGURES, SweepSpec
from core.spec.trial import WHOLE_RUN
from core.sweeps.rungs import Decision, newest_with, share_of, value_of

SHOWN_REASONS = 5
"""Of failed trials, in the error of a sweep."""


def promoted(spec: SweepSpec, each: TrialJob, place: int, share: float) -> str:
    until = "its end" if share == WHOLE_RUN else f"{share:.1%} of its steps"
    return f"{_name(each)} ranks number {place} with {_score(spec, each)} and continues to {until}."


def lost(spec: SweepSpec, each: TrialJob, place: int, decision: Decision, rung: int) -> str:
    share = share_of(rung, spec.rungs)
    when = "at the end" if share == WHOLE_RUN else f"after {share:.1%} of the steps"
    best = "the best one wins" if share == WHOLE_RUN else f"the best {decision.kept} continue"
    return (
        f"{_name(each)} has lost: {when}, it ranks number {place} of {len(decision.ranking)} with "
        f"{_score(spec, each)}; {best}."
    )


def won(spec: SweepSpec, each: TrialJob) -> str:
    return f"{_name(each)} has won with {_score(spec, each)}."


def all_failed(trials: Sequence[TrialJob]) -> dict[str, str | None]:
    """Return the error of a sweep without a trial that is left."""
    reasons = [f"trial {each.trial.number}: {each.trial.reason}" for each in trials]
    more = f"; and {len(reasons) - SHOWN_REASONS} more" if len(reasons) > SHOWN_REASONS else ""
    message = "No trial is left. " + "; ".join(reasons[:SHOWN_REASONS]) + more
    return {"code": "all_trials_failed", "message": message, "param": None}


def unmeasured(spec: SweepSpec) -> str:
    """Return why a trial that was trained cannot be compared."""
    if spec.metric in FIGURES:
        return "The run had no held-out rows."
    return f"Fewer than half of the answers to held-out rows have a score by {spec.metric!r}."


def _name(each: TrialJob) -> str:
    return f"Trial {each.trial.number} of {each.trial.sweep_id}"


def _score(spec: SweepSpec, each: TrialJob) -> str:
    result = newest_with(spec.metric, results_of(each.trial))
    assert result is not None, "only trials with a result are ranked"
    what = f"a held-out {spec.metric}" if spec.metric in FIGURES else f"a score by {spec.metric!r}"
    value = value_of(result, spec.metric)
    return f"{what} of {value:.4f} at step {result.step}"
