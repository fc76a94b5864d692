"""Runs two steps of a job that does not exist yet, in a child, and measures memory and time."""

from core.errors import TrainingFailed
from core.records.workers import calibrations
from core.spec.dry_run import DryRunRequest, DryRunResult
from core.spec.events import RunFailed
from core.spec.run_request import RunRequest
from core.spec.workspace import Workspace
from worker.launch import ask_for_dry_run
from worker.tasks.attempt import Attempt


def run(attempt: Attempt) -> DryRunResult:
    request = DryRunRequest.model_validate(attempt.payload)
    workspace = Workspace(folder=attempt.folder)
    attempt.store.fetch(request.train_key, workspace.train_file)
    if request.validation_key is not None:
        attempt.store.fetch(request.validation_key, workspace.validation_file)
    settings = attempt.settings
    run_request = RunRequest(
        request.spec,
        workspace,
        settings.threads,
        settings.measured_in.absolute(),
        engine_busy_file=settings.engine_busy_file,
    )
    answer = ask_for_dry_run(run_request, attempt.should_stop)
    if isinstance(answer, RunFailed):
        raise TrainingFailed(answer.message, param=answer.param, code=answer.code)
    with attempt.database.reading() as session:
        own = calibrations(session).get(settings.worker_id)
    return answer.model_copy(update={"machine": None if own is None else own.machine})
