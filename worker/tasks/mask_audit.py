"""Computes the mask of the first rows of a training file, in a child, as a run would."""

from core.errors import TrainingFailed
from core.spec.events import RunFailed
from core.spec.mask import MaskRequest, MaskResult
from core.spec.run_request import RunRequest
from core.spec.workspace import Workspace
from worker.launch import ask_for_audit
from worker.tasks.attempt import Attempt

AUDIT_SECONDS = 60.0


def run(attempt: Attempt) -> MaskResult:
    request = MaskRequest.model_validate(attempt.payload)
    workspace = Workspace(folder=attempt.folder)
    attempt.store.fetch(request.blob_key, workspace.train_file)
    run_request = RunRequest(request.spec, workspace, threads=1)
    answer = ask_for_audit(run_request, AUDIT_SECONDS, attempt.should_stop)
    if isinstance(answer, RunFailed):
        raise TrainingFailed(answer.message, param=answer.param, code=answer.code)
    return MaskResult(rows=answer.rows)
