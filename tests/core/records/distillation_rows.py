"""Distillations as rows: a request, a distillation, and results of its prompts."""

from typing import Any

from sqlalchemy.orm import Session

from core.records.distillation_progress import RowResult
from core.records.distillations import DISTILLATION, NewDistillation, create_distillation
from core.records.projects import ensure_project
from core.records.tables import Distillation
from core.records.tasks import TaskClaim, claim_next
from core.spec.base_model import BaseModelSpec
from core.spec.batch import BatchModel
from core.spec.distillation import DistillationRequest, FilterSpec, PromptsSpec, StudentPlan
from core.spec.evals import ReferencedMessages, SamplingSpec
from core.spec.job import JobSpec

TINY = BaseModelSpec(id="tiny", source="/models/tiny")
TRAINING_FILE = "file-training"


def request_of(id_: str, total: int = 3) -> DistillationRequest:
    return DistillationRequest(
        distillation_id=id_,
        prompts=PromptsSpec(blob_key="prompts"),
        sampling=SamplingSpec(
            url="/v1/chat/completions",
            model="tiny",
            input_messages=ReferencedMessages(
                type="item_reference", item_reference="item.messages"
            ),
            params={},
        ),
        is_asked=True,
        samples=1,
        teacher_names=(),
        filter=FilterSpec(),
        models={"tiny": BatchModel(id="tiny", base=TINY, adapter=None)},
        max_failed_share=0.1,
        total=total,
        labelled=None,
        training_file=TRAINING_FILE,
        student=StudentPlan(
            requested_model="tiny",
            suffix=None,
            validation_file=None,
            metadata=None,
            spec=JobSpec(base=TINY, seed=1),
            method="supervised",
            hyperparameters={},
            training={},
            hidden_size=256,
            must_download=False,
        ),
    )


def add_distillation(
    session: Session, id_: str = "distill-1", project: str = "alpha", **files: str
) -> Distillation:
    """Create a distillation; `files` are its `prompts_file`, `labelled_file`, …"""
    named: dict[str, Any] = dict.fromkeys(("prompts_file", "labelled_file", "validation_file"))
    ensure_project(session, project)
    new = NewDistillation(project, id_, {}, None, "tiny", **named | files)
    return create_distillation(session, new, request_of(id_))[0]


def claimed(session: Session) -> TaskClaim:
    claim = claim_next(session, "worker-1", [DISTILLATION])
    assert claim is not None
    return claim


def row(number: int, status: Any, reason: str | None = None, kept: int = 0) -> RowResult:
    usage: Any = {"model_name": "tiny", "invocation_count": 1, "total_tokens": 5}
    return RowResult(number, status, reason, kept, [usage], {"number": number})
