"""Distillations in a workshop: creation as the API does it, and attempts that are killed."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete

from core.distillation.candidates import Answered
from core.records.distillations import (
    DISTILLATION,
    NewDistillation,
    create_distillation,
    prompts_blob_key,
    rows_from,
)
from core.records.files import new_file_key
from core.records.ids import new_id
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import (
    Distillation,
    DistillationRow,
    File,
    Job,
    JobEvent,
    OutboxMessage,
    Task,
)
from core.spec.batch import BatchModel
from core.spec.distillation import DistillationRequest, FilterSpec, PromptsSpec, StudentPlan
from core.spec.evals import EvalModel, ReferencedMessages, SamplingSpec
from core.spec.job import JobSpec
from core.spec.strategy import LoraSpec
from core.spec.training import TrainingSpec
from tests.api.scripted_engine import ANSWER
from tests.worker.killed_attempts import attempt_task_until
from tests.worker.workshop import TINY, Workshop
from worker.answering import journal

TEACHER = BatchModel(id=TINY.id, base=TINY, adapter=None)
EXACT = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": ANSWER,
    "operation": "eq",
}


def asked(*questions: str) -> list[dict[str, Any]]:
    return [{"item": {"messages": [{"role": "user", "content": each}]}} for each in questions]


def student() -> StudentPlan:
    training = TrainingSpec(epochs=3, batch_size=1, max_length=64, learning_rate=1e-3)
    return StudentPlan(
        requested_model="tiny",
        suffix="student",
        validation_file=None,
        metadata=None,
        spec=JobSpec(base=TINY, strategy=LoraSpec(rank=2), training=training, seed=1),
        method="supervised",
        hyperparameters={},
        training={"max_length": 64, "learning_rate": 1e-3},
        hidden_size=None,
        must_download=False,
    )


def create(
    workshop: Workshop,
    rows: Sequence[dict[str, Any]],
    *graders: dict[str, Any],
    teacher: EvalModel = TEACHER,
    samples: int = 1,
    max_failed_share: float = 0.5,
    **changes: Any,
) -> str:
    """Create a distillation of these prompts; return its id."""
    id_ = new_id("distill")
    key = prompts_blob_key(id_)
    workshop.store.write(key, [json.dumps(row).encode() + b"\n" for row in rows])
    request = DistillationRequest(
        distillation_id=id_,
        prompts=PromptsSpec(blob_key=key),
        sampling=SamplingSpec(
            url="/v1/chat/completions",
            model="teacher",
            input_messages=ReferencedMessages(
                type="item_reference", item_reference="item.messages"
            ),
            params=changes.pop("params", {"seed": 42}),
        ),
        is_asked=True,
        samples=samples,
        teacher_names=("gpt-x",) if teacher is not TEACHER else (),
        filter=FilterSpec.model_validate({"graders": graders, **changes}),
        models={"teacher": teacher},
        max_failed_share=max_failed_share,
        total=len(rows),
        labelled=None,
        training_file=new_file_key()[0],
        student=student(),
    )
    new = NewDistillation(DEFAULT_PROJECT, id_, {}, None, teacher.id, None, None, None)
    with workshop.database.writing() as session:
        ensure_project(session)
        create_distillation(session, new, request)
    return id_


def attempt_until(workshop: Workshop, point: int | None) -> int | None:
    """Claim the task and work up to a point; return the points passed, None if it ended."""
    return attempt_task_until(workshop, DISTILLATION, journal, point)


def row_of(workshop: Workshop, id_: str) -> Distillation:
    with workshop.database.reading() as session:
        return get_owned(session, Distillation, DEFAULT_PROJECT, id_)


def prompts_of(workshop: Workshop, id_: str) -> list[Answered]:
    """Return the prompts with their answers, in order."""
    with workshop.database.reading() as session:
        rows = rows_from(session, DEFAULT_PROJECT, id_, 0, 10_000)
        return [Answered.model_validate(row.body) for row in rows]


def jobs_of(workshop: Workshop) -> list[Job]:
    with workshop.database.reading() as session:
        return list(session.query(Job))


def files_of(workshop: Workshop) -> list[File]:
    with workshop.database.reading() as session:
        return list(session.query(File))


def forget(workshop: Workshop) -> None:
    tables = (DistillationRow, Distillation, Task, JobEvent, OutboxMessage, Job, File)
    with workshop.database.writing() as session:
        for table in tables:
            session.execute(delete(table))
