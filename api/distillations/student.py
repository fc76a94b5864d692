"""The job of a distillation: all checks of a job, before there is a training file."""

import time
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.app_state import AppState
from api.auth.caller import Caller
from api.distillations.prompts import Labelled, Prompts
from api.distillations.schemas import CreateDistillation
from api.jobs.creation import new_job
from api.jobs.datasets import Rechecked
from api.jobs.method import asked_hyperparameters
from api.jobs.room import require_memory
from api.jobs.schemas import CreateJob
from api.jobs.service import with_models
from api.models.bases import require_files
from core.catalog.describe import describe
from core.errors import InvalidRequest
from core.inference.invalid_body import invalid_object
from core.records.files import file_key
from core.records.tables import File
from core.spec.batch import BatchModel
from core.spec.dataset import DatasetReport
from core.spec.distillation import ANSWER_TOKENS, StudentPlan
from core.spec.ids import FileId

CHARACTERS_PER_TOKEN = 4


def job_body(job: dict[str, Any], file_id: FileId) -> CreateJob:
    """Return the body of the job with its training file. InvalidRequest names its field."""
    if "training_file" in job:
        raise InvalidRequest(
            "The distillation writes the training file of its job; remove training_file. Rows of "
            "your own are added with labelled_file.",
            param="training_file",
            code="unknown_parameter",
        )
    body = job | {"training_file": file_id}
    try:
        return CreateJob.model_validate(body)
    except ValidationError as error:
        raise invalid_object(error, body, CreateJob) from None


def expected_file(
    caller: Caller,
    file_id: FileId,
    body: CreateDistillation,
    prompts: Prompts,
    labelled: Labelled | None,
) -> File:
    """Return the training file as it would be if every prompt had all the answers to keep."""
    limit = body.sampling.max_completion_tokens or ANSWER_TOKENS
    answer = min(limit, ANSWER_TOKENS) * CHARACTERS_PER_TOKEN
    kept = min(body.filter.keep, body.sampling.n)
    row = prompts.characters / prompts.total + answer
    rows, characters, longest = prompts.total * kept, prompts.total * kept * row, row
    if labelled is not None:
        rows += labelled.report.rows
        characters += labelled.report.characters
        longest = max(longest, labelled.report.longest_characters)
    report = DatasetReport(
        format="chat",
        rows=rows,
        faults=(),
        fault_count=0,
        characters=int(characters),
        longest_characters=int(longest),
        column_names=("messages",),
    )
    return File(
        id=file_id,
        project_id=caller.project,
        filename="",
        purpose="fine-tune",
        bytes=int(characters),
        sha256="",
        blob_key=file_key(file_id),
        report=report.model_dump(mode="json"),
        created_at=time.time(),
    )


def student_plan(
    session: Session,
    state: AppState,
    caller: Caller,
    body: CreateJob,
    rechecked: Rechecked,
    grader_models: dict[str, BatchModel],
) -> StudentPlan:
    """Return the job that is created once the training file is written."""
    hub_folder = state.settings.hub_folder
    new = new_job(session, state.catalog, caller, body, rechecked, hub_folder)
    require_memory(session, caller, body, rechecked, new, hub_folder)
    asked = asked_hyperparameters(body.method, body.hyperparameters)
    facts = describe(new.spec.base)
    return StudentPlan(
        requested_model=new.requested_model,
        suffix=new.suffix,
        validation_file=new.validation_file,
        metadata=new.metadata,
        spec=with_models(new, grader_models).spec,
        method=asked.method,
        hyperparameters=asked.model_dump(mode="json"),
        training=body.training.model_dump(mode="json", exclude_unset=True),
        hidden_size=None if facts is None else facts.hidden_size,
        must_download=require_files(session, state, new.spec.base, or_downloadable=True),
    )
