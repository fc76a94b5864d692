"""Whether a job fits into the memory of a living worker, by the planner's estimate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from api.auth.caller import Caller
from api.jobs.datasets import Rechecked, datasets_of
from api.jobs.schemas import CreateJob
from core.errors import InvalidRequest
from core.planning.configs import config_of
from core.planning.corrections import DryRun, correction_by, counted_rows
from core.planning.fields import Fields
from core.planning.fit import Correction, Fit, best_fit, judge
from core.planning.run import PlannedRun
from core.planning.suggestion import Suggestion, suggestion
from core.planning.workload import workload_of
from core.records.dry_runs import measured_runs
from core.records.jobs import NewJob
from core.records.workers import calibrations, has_unmeasured_worker
from core.spec.calibration import Calibration
from core.spec.dry_run import DryRunRequest, DryRunResult
from core.spec.job import JobSpec

GIB = 2**30


@dataclass(frozen=True)
class PlannedJob:
    """A job's run, and how it fits on each living worker that has measured its device."""

    run: PlannedRun
    workers: Mapping[str, Calibration]
    corrections: Mapping[str, Correction]
    fits: Mapping[str, Fit]

    @property
    def best(self) -> Fit:
        """The best fit; on a usual CPU and without a verdict if no worker has measured its own."""
        return best_fit(list(self.fits.values()) or [judge(self.run, None)])

    def suggestion(self) -> Suggestion | None:
        """Return what would make the job fit on the worker with the most memory."""
        if not self.workers:
            return None
        worker = max(self.workers, key=lambda name: self.workers[name].free_bytes)
        return suggestion(self.run, self.workers[worker], self.corrections[worker])


def planned_run(
    session: Session,
    caller: Caller,
    body: CreateJob,
    rechecked: Rechecked,
    spec: JobSpec,
    hub_folder: Path | None,
) -> PlannedRun | None:
    """Return the run of a job; None if the config of its base is not on this machine."""
    config = config_of(spec.base, hub_folder or Path())
    if config is None:
        return None
    training = datasets_of(session, caller, body, rechecked)[1][0]
    request = DryRunRequest(spec=spec, train_key=training.file.blob_key)
    rows = counted_rows(finished_runs(session, caller, spec), request) or workload_of(
        spec, training.report, training.file.bytes, Fields(config)
    )
    return PlannedRun(spec, config, rows)


def planned_job(session: Session, caller: Caller, run: PlannedRun) -> PlannedJob:
    """Compare the run with the devices of the living workers."""
    workers = calibrations(session)
    runs = finished_runs(session, caller, run.spec)
    corrections = {
        name: correction_by(runs, run.config, worker) for name, worker in workers.items()
    }
    fits = {name: judge(run, worker, corrections[name]) for name, worker in workers.items()}
    return PlannedJob(run, workers, corrections, fits)


def finished_runs(session: Session, caller: Caller, spec: JobSpec) -> Sequence[DryRun]:
    """Return the caller's dry runs of the same base and strategy, newest first."""
    return [
        DryRun(DryRunRequest.model_validate(task.payload), DryRunResult.model_validate(task.result))
        for task in measured_runs(session, caller.project, spec)
    ]


def require_memory(
    session: Session,
    caller: Caller,
    body: CreateJob,
    rechecked: Rechecked,
    new: NewJob,
    hub_folder: Path,
) -> None:
    """Raise InvalidRequest `does_not_fit` if the job cannot fit on any living worker.

    If a worker has not measured its device, or without the base's config, the job may fit, and
    nothing is refused.
    """
    if has_unmeasured_worker(session):
        return
    run = planned_run(session, caller, body, rechecked, new.spec, hub_folder)
    if run is None:
        return
    planned = planned_job(session, caller, run)
    if not planned.fits or planned.best.verdict != "no":
        return
    largest = max(worker.memory_bytes for worker in planned.workers.values())
    found = planned.suggestion()
    raise InvalidRequest(
        f"The job needs about {planned.best.peak_bytes / GIB:.1f} GiB of memory, and the largest "
        f"running worker has {largest / GIB:.1f} GiB. "
        + (found.message if found else "Use a smaller base, or a worker with more memory."),
        param="model",
        code="does_not_fit",
    )
