"""Turns the body of a sweep into the jobs of its trials, with all checks of a job for each."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.app_state import AppState
from api.auth.caller import Caller
from api.jobs.creation import new_job
from api.jobs.datasets import Rechecked
from api.jobs.room import require_memory
from api.jobs.schemas import CreateJob
from api.models.bases import require_files
from api.sweeps.schemas import CreateSweep
from api.sweeps.trial_errors import error_of
from core.errors import InvalidRequest, TunesmithError
from core.inference.invalid_body import invalid_object
from core.records.jobs import NewJob
from core.spec.search import Parameters, RandomSearch, SearchSpec
from core.spec.sweep import FIGURES
from core.sweeps.parameters import applied, described
from core.sweeps.search import trials_of


@dataclass(frozen=True)
class NewTrial:
    """A trial without an id, and whether its base must be downloaded first."""

    parameters: Parameters
    job: NewJob
    must_download: bool


@dataclass(frozen=True)
class Expanded:
    """The search with its seed, the body that the trials share, and what differs in them."""

    search: SearchSpec
    job: dict[str, Any]
    trials: list[Parameters]


def expand(body: CreateSweep) -> Expanded:
    """Return the trials of a sweep. The seeds are drawn here if none are given.

    InvalidRequest if there is nothing by which trials could be compared.
    """
    if not body.job.evaluation.split and body.job.validation_file is None:
        raise InvalidRequest(
            "A sweep compares its trials on held-out rows. Set job.evaluation.split, for instance "
            "to 0.1, or job.validation_file.",
            param="job.evaluation.split",
            code="missing_required_parameter",
        )
    _require_metric(body)
    search = body.search
    seed = 0
    if isinstance(search, RandomSearch):
        seed = secrets.randbelow(2**31) if search.seed is None else search.seed
        search = search.model_copy(update={"seed": seed})
    trials = trials_of(search, seed)
    job = body.job.model_dump(mode="json", exclude_unset=True)
    if body.job.seed is None:
        job["seed"] = secrets.randbelow(2**31)  # equal held-out rows and new weights in all trials
    if body.suffix is not None:
        job["suffix"] = body.suffix
    return Expanded(search, job, trials)


def _require_metric(body: CreateSweep) -> None:
    """InvalidRequest unless the metric of the halving is measured in every trial."""
    evaluation = body.job.evaluation
    metric = "loss" if body.halving is None else body.halving.metric
    graders = [grader.name for grader in evaluation.graders]
    if metric in FIGURES:
        return
    if metric not in graders:
        known = ", ".join((*FIGURES, *graders))
        raise InvalidRequest(
            f"halving.metric is {metric!r}, which is neither loss, accuracy nor the name of a "
            f"grader in job.evaluation.graders. Known: {known}.",
            param="halving.metric",
            code="invalid_value",
        )
    if not evaluation.samples:
        raise InvalidRequest(
            f"The grader {metric!r} needs answers to held-out rows, and job.evaluation.samples is "
            "0. Set it to their number, for instance 100.",
            param="job.evaluation.samples",
            code="invalid_value",
        )


def new_trials(
    session: Session, state: AppState, caller: Caller, expanded: Expanded, rechecked: Rechecked
) -> list[NewTrial]:
    """Return the jobs of all trials; the error of an invalid one names the trial."""
    hub_folder = state.settings.hub_folder
    found: list[NewTrial] = []
    faults: list[tuple[int, TunesmithError]] = []
    for number, parameters in enumerate(expanded.trials):
        try:
            body = _body(applied(expanded.job, parameters))
            job = new_job(session, state.catalog, caller, body, rechecked, hub_folder)
            require_memory(session, caller, body, rechecked, job, hub_folder)
            absent = require_files(session, state, job.spec.base, or_downloadable=True)
        except TunesmithError as error:
            faults.append((number, error))
        else:
            found.append(NewTrial(parameters, job, absent))
    if faults:
        raise error_of(faults, expanded.trials)
    _require_different(found)
    return found


def _require_different(trials: Sequence[NewTrial]) -> None:
    """Raise InvalidRequest for two trials that are one job, although their texts differ."""
    first: dict[str, int] = {}
    for number, trial in enumerate(trials):
        job = trial.job.spec.model_dump_json(exclude={"strategy_reason"})
        if (earlier := first.setdefault(job, number)) != number:
            told = " and ".join(
                f"{each} ({described(trials[each].parameters)})" for each in (earlier, number)
            )
            raise InvalidRequest(
                f"Trials {told} are the same job. Remove one of them.",
                param="search.parameters",
                code="invalid_value",
            )


def _body(job: dict[str, Any]) -> CreateJob:
    try:
        return CreateJob.model_validate(job)
    except ValidationError as error:
        raise invalid_object(error, job, CreateJob) from None
