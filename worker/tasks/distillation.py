"""Runs a distillation: the teacher answers, graders filter, the training file and job are created.

An attempt continues where the last one stopped: prompts that have rows are not asked again, and
rows that are graded are not graded again. What the last transaction records exists once.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from core.catalog.external import BadEndpoints, Endpoints
from core.distillation.student import job_of
from core.errors import InvalidRequest, NotFound, StaleClaim
from core.records.distillation_progress import (
    RowResult,
    add_answers,
    begin,
    begin_filtering,
    end_with_job,
    end_without_job,
    set_outcomes,
    stored_numbers,
)
from core.records.distillations import needs_file
from core.spec.distillation import (
    FINAL,
    DistillationRequest,
    DistillationResult,
    DistillationStatus,
)
from core.spec.ids import DistillationId
from worker.answering.background import background_of
from worker.answering.external import ExternalClient
from worker.answering.journal import Journal
from worker.answering.models import NamedModels
from worker.answering.working import work_through
from worker.coroutines import Interrupted, run_unless
from worker.distillations.asking import Teacher
from worker.distillations.failures import Failures
from worker.distillations.filtering import Filter
from worker.distillations.prompts import Row, prompt_rows
from worker.distillations.stored import example_of, stored_rows
from worker.distillations.writing import write_training_file
from worker.judges import WorkerJudges
from worker.outages.commit import commit
from worker.tasks.attempt import Attempt

Error = dict[str, Any]
Make = Callable[[NamedModels], Callable[[int, Row], Awaitable[RowResult]]]
"""Returns what makes the result of a row, and may ask models."""


def run(attempt: Attempt) -> DistillationResult:
    request = DistillationRequest.model_validate(attempt.payload)
    id_, claim = DistillationId(request.distillation_id), attempt.claim
    status = commit(attempt.database, lambda session: begin(session, claim, id_))
    error: Error | None = None
    if status is DistillationStatus.ASKING:
        error = _explained(_ask, attempt, request)
        if error is None:
            status = commit(attempt.database, lambda session: begin_filtering(session, claim, id_))
    if status is DistillationStatus.FILTERING:
        error = _explained(_filter, attempt, request)
    if error is not None:
        reason = error
        status = commit(
            attempt.database, lambda session: end_without_job(session, claim, id_, reason)
        )
    elif status not in FINAL:
        status = _end(attempt, request)
    return DistillationResult(status=status)


def _explained(
    stage: Callable[[Attempt, DistillationRequest, Endpoints], Error | None],
    attempt: Attempt,
    request: DistillationRequest,
) -> Error | None:
    """Run a stage; return why it could not end, with the reason of one prompt."""
    try:
        error = stage(attempt, request, Endpoints.load(attempt.settings.endpoints_file))
        return None if error is None else _with_example(attempt, request, error)
    except BadEndpoints as error:
        return _error("external_endpoint_error", f"The workers' settings: {error}")
    except NotFound as error:
        return _error(error.code, error.message, error.param)


def _ask(attempt: Attempt, request: DistillationRequest, endpoints: Endpoints) -> Error | None:
    """Ask for the answers that are missing; return an error if too many prompts have failed."""
    id_ = DistillationId(request.distillation_id)
    path = attempt.folder / "prompts"
    attempt.store.fetch(request.prompts.blob_key, path)
    with attempt.database.reading() as session:
        stored = stored_numbers(session, id_)
    failures = Failures(request, Counter(stored.values())["failed"])
    rows = (
        (number, row)
        for number, row in enumerate(prompt_rows(path, request.prompts))
        if number not in stored
    )

    def make(models: NamedModels) -> Callable[[int, Row], Awaitable[RowResult]]:
        return failures.counting(Teacher(request, models.ask).answers)

    _work(attempt, request, endpoints, failures.until_too_many(rows), make, add_answers)
    if failures.are_too_many:
        return _error("too_many_failures", failures.message, "max_failed_share")
    return None


def _filter(attempt: Attempt, request: DistillationRequest, endpoints: Endpoints) -> Error | None:
    """Grade the answers that are not graded; return an error if nothing is kept."""
    project = attempt.claim.project_id
    id_ = DistillationId(request.distillation_id)
    rows = stored_rows(attempt.database, project, id_, "answered")

    def make(models: NamedModels) -> Callable[[int, Row], Awaitable[RowResult]]:
        judges = WorkerJudges(models, attempt.settings.grader_limits)
        return Filter(request.filter, judges).outcome

    _work(attempt, request, endpoints, rows, make, set_outcomes)
    if next(stored_rows(attempt.database, project, id_, "kept"), None) is None:
        return _error(
            "no_rows_kept",
            "No answer of the teacher is kept, so there is nothing to train on.",
        )
    return None


def _work(
    attempt: Attempt,
    request: DistillationRequest,
    endpoints: Endpoints,
    rows: Iterator[tuple[int, Mapping[str, Any]]],
    make: Make,
    add: Callable[..., None],
) -> None:
    """Store what `make` makes of the rows. Raises Interrupted if the worker stops."""
    claim, id_ = attempt.claim, DistillationId(request.distillation_id)
    journal = Journal[RowResult](
        attempt.database, lambda session, results: add(session, claim, id_, results)
    )

    async def work() -> None:
        background = background_of(attempt.database, attempt.settings.engine_key)
        external = ExternalClient(endpoints)
        models = NamedModels(request.models, claim.project_id, background, external)
        try:
            await background.during(work_through(rows, make(models), journal))
        finally:
            await external.close()

    try:
        run_unless(attempt.should_stop, work())
    except Interrupted:
        journal.store()
        raise
    journal.store()


def _end(attempt: Attempt, request: DistillationRequest) -> DistillationStatus:
    """Write the training file and create the job; without a job, the file is kept."""
    database, store, claim = attempt.database, attempt.store, attempt.claim
    id_, plan = DistillationId(request.distillation_id), request.student
    file = write_training_file(database, store, attempt.folder, claim.project_id, request)

    def with_job(session: Session) -> DistillationStatus:
        new = partial(job_of, plan)
        return end_with_job(session, claim, id_, file, new, must_download=plan.must_download)

    try:
        try:
            return commit(database, with_job)
        except (InvalidRequest, NotFound) as error:
            why = _error(error.code, f"The job cannot be created: {error.message}", error.param)
            return commit(database, lambda session: end_without_job(session, claim, id_, why, file))
    except StaleClaim:
        with database.reading() as session:
            is_needed = needs_file(session, id_, request.training_file)
        if not is_needed:
            store.delete(file.key)
        raise


def _with_example(attempt: Attempt, request: DistillationRequest, error: Error) -> Error:
    project, id_ = attempt.claim.project_id, DistillationId(request.distillation_id)
    example = example_of(attempt.database, project, id_, "dropped", "failed")
    more = "" if example is None else f" {example}"
    return error | {"message": f"{error['message']}{more}"}


def _error(code: str, message: str, param: str | None = None) -> Error:
    return {"code": code, "message": message, "param": param}
