"""Moves sweeps on: compares the trials of a rung once all have reached it, and acts on the result.

Everything is decided from the database, in one transaction under the locks of the jobs. So it may
be called by any process, at any time and any number of times: the worker of a trial calls it for a
quick start of the next rung, housekeeping for everything that the worker does not see or does not
survive.
"""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from core.jobs.state import FINAL, JobStatus
from core.records import sweep_progress as progress
from core.records.database import Database
from core.records.sweep_progress import TrialJob
from core.records.tables import Sweep
from core.records.trials import has_reached_rung, results_of
from core.spec.ids import SweepId
from core.spec.sweep import Metric, SweepSpec, SweepStatus
from core.spec.trial import WHOLE_RUN, TrialOutcome
from core.sweeps import messages
from core.sweeps.rungs import Contender, Decision, decide, newest_with, share_of


def advance_sweeps(database: Database) -> list[SweepId]:
    """Advance every running sweep as far as possible; return those that have changed."""
    with database.reading() as session:
        running = progress.running_sweeps(session)
        trials = progress.trials_of(session, running)
        due = [sweep.id for sweep in running if _decision(sweep, trials[sweep.id]) is not None]
    changed = []
    for sweep_id in due:
        with database.writing() as session:
            if advance_sweep(session, sweep_id):
                changed.append(sweep_id)
    return changed


def advance_sweep(session: Session, sweep_id: SweepId) -> bool:
    """Act on the current rung of a sweep if it is complete; return whether anything changed."""
    sweep, trials = progress.lock_sweep(session, sweep_id)
    decision = _decision(sweep, trials)
    if decision is None:
        return False
    spec = SweepSpec.model_validate(sweep.spec)
    by_number = {each.trial.number: each for each in trials}
    for number in decision.fallen:
        _drop(session, spec, by_number[number])
    for place, number in enumerate(decision.ranking[decision.kept :], decision.kept + 1):
        reason = messages.lost(spec, by_number[number], place, decision, sweep.rung)
        progress.end_trial(session, by_number[number], TrialOutcome.LOST, reason)
    kept = [by_number[number] for number in decision.ranking[: decision.kept]]
    if decision.next_rung is None:
        _end(session, sweep, spec, kept, trials)
    else:
        _continue(session, sweep, spec, kept, decision.next_rung)
    return True


def _decision(sweep: Sweep, trials: Sequence[TrialJob]) -> Decision | None:
    """Return what follows the current rung; None while a trial trains, or the sweep is paused."""
    if sweep.status != SweepStatus.RUNNING:
        return None
    spec = SweepSpec.model_validate(sweep.spec)
    contenders = [_contender(each, spec.metric) for each in trials if each.trial.outcome is None]
    return decide(contenders, sweep.rung, spec.rungs, spec.metric)


def _contender(each: TrialJob, metric: Metric) -> Contender:
    job, trial = each.job, each.trial
    newest = newest_with(metric, results_of(trial))
    if job.status == JobStatus.SUCCEEDED:
        return Contender(trial.number, is_done=True, result=newest)
    if job.status in FINAL:
        return Contender(trial.number, is_done=True)
    waits = job.status == JobStatus.PAUSED and has_reached_rung(job, trial)
    return Contender(trial.number, is_done=waits, result=newest)


def _continue(
    session: Session, sweep: Sweep, spec: SweepSpec, kept: Sequence[TrialJob], rung: int
) -> None:
    """Train the trials until `rung`, or to the end."""
    sweep.rung = rung
    share = share_of(rung, spec.rungs)
    for place, each in enumerate(kept, 1):
        message = messages.promoted(spec, each, place, share)
        progress.promote(session, each, None if share == WHOLE_RUN else share, message)


def _end(
    session: Session,
    sweep: Sweep,
    spec: SweepSpec,
    kept: Sequence[TrialJob],
    trials: Sequence[TrialJob],
) -> None:
    if not kept:
        progress.end_sweep(session, sweep, SweepStatus.FAILED, error=messages.all_failed(trials))
        return
    (winner,) = kept
    progress.end_trial(session, winner, TrialOutcome.WON, messages.won(spec, winner))
    progress.end_sweep(session, sweep, SweepStatus.SUCCEEDED, winner=winner.job.id)


def _drop(session: Session, spec: SweepSpec, each: TrialJob) -> None:
    """Record why a trial has ended without a result."""
    if each.job.status == JobStatus.CANCELLED:
        progress.end_trial(session, each, TrialOutcome.CANCELLED, "The job was cancelled.")
        return
    error = each.job.error or {}
    reason = error.get("message") or messages.unmeasured(spec)
    progress.end_trial(session, each, TrialOutcome.FAILED, reason)
