"""The operations of the sweep routes."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from sqlalchemy.orm import Session

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.jobs import service as jobs
from api.jobs.datasets import notices, recheck
from api.pagination import ListOf, list_of
from api.repeats import remember
from api.sweeps.creation import Expanded, expand, new_trials
from api.sweeps.schemas import CreateSweep, SweepObject, sweep_object
from api.sweeps.trial_errors import naming_the_job
from core.jobs.state import CLAIMABLE
from core.records import sweeps
from core.records.ids import new_id
from core.records.owned import get_owned
from core.records.sweep_progress import trials_of
from core.records.tables import Sweep
from core.spec.batch import BatchModel
from core.spec.ids import SweepId
from core.spec.sweep import HalvingSpec, SweepSpec
from core.spec.trial import WHOLE_RUN
from core.sweeps.rungs import rungs_of, share_of
from core.tasks.kinds import JOB, Work


def create(
    state: AppState,
    caller: Caller,
    body: CreateSweep,
    grader_models: Mapping[str, BatchModel] = jobs.NO_MODELS,
) -> SweepObject:
    """Create a sweep with the jobs of its trials, and wake workers.

    The trials are checked before the transaction, which locks their files and models again.
    """
    expanded = expand(body)
    with naming_the_job():
        rechecked = recheck(state, caller, body.job)
    with state.database.reading() as session:
        trials = new_trials(session, state, caller, expanded, rechecked)
        told = notices(session, caller, body.job, rechecked)
    spec = _spec(expanded, body.halving)
    first_share = share_of(0, spec.rungs)
    with state.transaction() as transaction:
        session = transaction.session
        sweep_id = SweepId(new_id("sweep"))
        created = [
            jobs.store(
                transaction,
                state,
                replace(
                    jobs.with_models(trial.job, grader_models),
                    sweep_id=sweep_id,
                    pause_at_share=None if first_share == WHOLE_RUN else first_share,
                ),
                told,
                must_download=trial.must_download,
            )
            for trial in trials
        ]
        sweep = sweeps.create_sweep(session, sweep_id, caller.project, spec)
        for number, (job, trial) in enumerate(zip(created, trials, strict=True)):
            sweeps.add_trial(session, sweep, number, job.id, trial.parameters)
        return remember(session, caller, _shown(session, sweep))


def find(session: Session, caller: Caller, *, after: str | None, limit: int) -> ListOf[SweepObject]:
    page = sweeps.list_sweeps(session, caller.project, after=after, limit=limit)
    trials = trials_of(session, page.rows)
    return list_of(page, lambda sweep: sweep_object(sweep, trials[sweep.id]))


def get(session: Session, caller: Caller, sweep_id: SweepId) -> SweepObject:
    return _shown(session, get_owned(session, Sweep, caller.project, sweep_id))


def cancel(transaction: Transaction, caller: Caller, sweep_id: SweepId) -> SweepObject:
    session = transaction.session
    return _shown(session, sweeps.cancel_sweep(session, caller.project, sweep_id))


def pause(transaction: Transaction, caller: Caller, sweep_id: SweepId) -> SweepObject:
    session = transaction.session
    return _shown(session, sweeps.pause_sweep(session, caller.project, sweep_id))


def resume(
    transaction: Transaction, state: AppState, caller: Caller, sweep_id: SweepId
) -> SweepObject:
    """Resume a sweep and wake workers for its jobs."""
    session = transaction.session
    sweep = sweeps.resume_sweep(session, caller.project, sweep_id)
    for each in trials_of(session, [sweep])[sweep.id]:
        if each.job.status in CLAIMABLE:
            transaction.after_commit(partial(state.broker.wake, Work(JOB, each.job.id)))
    return _shown(session, sweep)


def _spec(expanded: Expanded, halving: HalvingSpec | None) -> SweepSpec:
    rungs = rungs_of(len(expanded.trials), halving)
    return SweepSpec(job=expanded.job, search=expanded.search, halving=halving, rungs=rungs)


def _shown(session: Session, sweep: Sweep) -> SweepObject:
    return sweep_object(sweep, trials_of(session, [sweep])[sweep.id])
