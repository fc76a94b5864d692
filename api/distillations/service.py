"""The operations of the distillation routes."""

from functools import partial
from typing import Any

from pydantic_core import to_json
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.distillations.prompts import input_messages_of, labelled_of, prompts_of
from api.distillations.schemas import (
    CreateDistillation,
    DeletedDistillation,
    DistillationObject,
    distillation_object,
)
from api.distillations.student import expected_file, job_body, student_plan
from api.evals.data_sources import FileContent
from api.evals.sampling import CHAT, check_params, models_of
from api.evals.service import require_text
from api.jobs.datasets import recheck
from api.jobs.graders import models_of_graders
from api.jobs.schemas import CreateJob
from api.pagination import ListOf, list_of
from api.repeats import remember
from api.sweeps.trial_errors import naming_the_job
from core.grading.validate import check_grader
from core.records import distillations
from core.records.distillations import NewDistillation
from core.records.files import new_file_key, pin_files
from core.records.ids import new_id
from core.records.owned import get_owned
from core.records.pages import within_bytes
from core.records.tables import Distillation
from core.spec.batch import BatchModel
from core.spec.distillation import DistillationRequest
from core.spec.evals import EvalModel, ExternalModel, SamplingSpec
from core.spec.ids import DistillationId, FileId
from core.tasks.kinds import Work

NO_TEACHER = "teacher"
"""The model in the checked bodies of prompts that have answers."""


async def create(state: AppState, caller: Caller, body: CreateDistillation) -> DistillationObject:
    """Create a distillation. Everything is checked now that can be, the job included."""
    await run_in_threadpool(require_text, body, prompts={"content"})
    file_id, _ = new_file_key()
    with naming_the_job():
        job = job_body(body.job, file_id)
    graders = {f"filter.graders[{at}]": each for at, each in enumerate(body.filter.graders)}
    for place, grader in graders.items():
        await run_in_threadpool(check_grader, grader, place)
    asked = {} if body.teacher is None else {"teacher": body.teacher}
    models = await models_of(state, caller, graders, asked)
    judges = await models_of_graders(
        state, caller, job.evaluation.graders, "job.evaluation.graders"
    )
    return await run_in_threadpool(_create, state, caller, body, job, models, judges)


def _create(
    state: AppState,
    caller: Caller,
    body: CreateDistillation,
    job: CreateJob,
    models: dict[str, EvalModel],
    judges: dict[str, BatchModel],
) -> DistillationObject:
    id_ = DistillationId(new_id("distill"))
    sampling = _sampling(body)
    labelled = labelled_of(state, caller, body.labelled_file)
    with prompts_of(state, caller, id_, body) as prompts:
        unwritten = expected_file(caller, job.training_file, body, prompts, labelled)
        with naming_the_job():
            rechecked = recheck(state, caller, job, unwritten)
            with state.database.reading() as session:
                student = student_plan(session, state, caller, job, rechecked, judges)
        request = DistillationRequest(
            distillation_id=id_,
            prompts=prompts.spec,
            sampling=sampling,
            is_asked=body.teacher is not None,
            samples=body.sampling.n,
            teacher_names=_names(body, models),
            filter=body.filter,
            models=models,
            max_failed_share=body.max_failed_share,
            total=prompts.total,
            labelled=None if labelled is None else labelled.spec,
            training_file=job.training_file,
            student=student,
        )
        return _store(state, caller, _new(caller, body, request, prompts.file_id), request)


def _new(
    caller: Caller,
    body: CreateDistillation,
    request: DistillationRequest,
    prompts_file: FileId | None,
) -> NewDistillation:
    return NewDistillation(
        project_id=caller.project,
        id=DistillationId(request.distillation_id),
        request=_shown(body),
        user_metadata=body.metadata,
        teacher=None if body.teacher is None else request.models[body.teacher].id,
        prompts_file=prompts_file,
        labelled_file=body.labelled_file,
        validation_file=request.student.validation_file,
    )


def _store(
    state: AppState, caller: Caller, new: NewDistillation, request: DistillationRequest
) -> DistillationObject:
    files: dict[str, FileId | None] = {
        "prompts.id": new.prompts_file,
        "labelled_file": new.labelled_file,
        "job.validation_file": new.validation_file,
    }
    with state.transaction() as transaction:
        session = transaction.session
        pinned = {param: file_id for param, file_id in files.items() if file_id is not None}
        pin_files(session, new.project_id, pinned)
        row, task = distillations.create_distillation(session, new, request)
        transaction.after_commit(partial(state.broker.wake, Work(task.kind, task.id)))
        return remember(session, caller, distillation_object(session, row))


def find(
    session: Session, caller: Caller, *, after: str | None, limit: int
) -> ListOf[DistillationObject]:
    """Return a page, which ends early if its requests are large."""
    page = distillations.list_distillations(session, caller.project, after=after, limit=limit)
    shown = within_bytes(page, lambda row: len(to_json(row.request)))
    return list_of(shown, partial(distillation_object, session))


def get(session: Session, caller: Caller, id_: DistillationId) -> DistillationObject:
    return distillation_object(session, get_owned(session, Distillation, caller.project, id_))


def cancel(
    transaction: Transaction, caller: Caller, id_: DistillationId, state: AppState
) -> DistillationObject:
    session = transaction.session
    row = distillations.cancel_distillation(session, caller.project, id_)
    for key in distillations.unwritten_blobs(session, row):
        transaction.after_commit(partial(state.store.delete, key))
    return distillation_object(session, row)


def delete(
    transaction: Transaction, caller: Caller, id_: DistillationId, state: AppState
) -> DeletedDistillation:
    """Delete a distillation with its answers; one that has not ended stops."""
    keys = distillations.delete_distillation(transaction.session, caller.project, id_)
    for key in keys:
        transaction.after_commit(partial(state.store.delete, key))
    return DeletedDistillation(id=id_)


def _sampling(body: CreateDistillation) -> SamplingSpec:
    params: dict[str, Any] = body.sampling.model_dump(exclude_none=True, exclude={"n"})
    check_params(CHAT, params, "sampling")
    return SamplingSpec(
        url="/v1/chat/completions",
        model=body.teacher or NO_TEACHER,
        input_messages=input_messages_of(body),
        params=params,
    )


def _names(body: CreateDistillation, models: dict[str, EvalModel]) -> tuple[str, ...]:
    """Return the names that answers of an external teacher may have."""
    teacher = None if body.teacher is None else models[body.teacher]
    if not isinstance(teacher, ExternalModel):
        return ()
    return (teacher.model, *body.teacher_names)


def _shown(body: CreateDistillation) -> dict[str, Any]:
    """Return the request as its object shows it: without prompts, which may be megabytes."""
    left_out: dict[str, Any] = {"teacher": True, "metadata": True}
    if isinstance(body.prompts, FileContent):
        left_out["prompts"] = {"content"}
    absent = {"input_messages": None, "labelled_file": None}
    return absent | body.model_dump(mode="json", exclude=left_out, exclude_none=True)
