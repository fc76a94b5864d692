"""The bodies of the comparison routes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.shown_tasks import TaskError, TaskStatus, error_of, finished_at, status_of
from core.records.tables import Task
from core.spec.comparison import (
    FEWEST_MODELS,
    MOST_ITEMS,
    MOST_MODELS,
    ComparedItem,
    ComparisonProgress,
    ComparisonRequest,
    ComparisonResult,
    Difference,
    ModelScores,
)
from core.spec.evaluation import METRICS, MOST_GRADERS
from core.spec.grader import Grader
from core.spec.ids import FileId, ModelId
from core.spec.numbers import Integer

MOST_TOKENS = 4096
DEFAULT_TOKENS = 256

_Name = StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00]*$")


class CreateComparison(BaseModel):
    """Which models are compared on which rows. `columns` is that of the upload by default."""

    model_config = ConfigDict(extra="forbid")

    models: Annotated[
        list[Annotated[ModelId, _Name]], Field(min_length=FEWEST_MODELS, max_length=MOST_MODELS)
    ]
    """Bases, tuned models and checkpoints."""
    file: Annotated[FileId, _Name]
    """A dataset: rows with answers or labels."""
    graders: Annotated[tuple[Grader, ...], Field(max_length=MOST_GRADERS)] = ()
    samples: Annotated[Integer, Field(ge=1, le=MOST_ITEMS)] = 100
    """Rows that are drawn from the file."""
    max_tokens: Annotated[Integer, Field(ge=1, le=MOST_TOKENS)] = DEFAULT_TOKENS
    """Of each answer."""
    seed: Annotated[Integer, Field(ge=0, le=2**31 - 1)] = 0
    """Of the draw: the same seed draws the same rows."""


RESERVED = frozenset(METRICS)
"""Names that graders cannot have."""


class ComparisonObject(BaseModel):
    """A comparison; `scores` and `differences` are complete once it has succeeded."""

    id: str
    object: Literal["fine_tuning.comparison"] = "fine_tuning.comparison"
    created_at: int
    finished_at: int | None
    status: TaskStatus
    models: list[str]
    file: str
    completed: int
    """Rows that all models have answered."""
    total: int | None
    """Null until a worker has read the file."""
    omitted: int
    """Drawn rows without an answer to compare with, or that are too long."""
    scores: list[ModelScores]
    differences: list[Difference]
    items: list[ComparedItem]
    error: TaskError | None


def comparison_object(task: Task) -> ComparisonObject:
    request = ComparisonRequest.model_validate(task.payload)
    progress = None
    if task.progress is not None:
        progress = ComparisonProgress.model_validate(task.progress)
    result = None if task.result is None else ComparisonResult.model_validate(task.result)
    return ComparisonObject(
        id=task.id,
        created_at=int(task.created_at),
        finished_at=finished_at(task),
        status=status_of(task),
        models=[model.id for model in request.models],
        file=task.subject,
        completed=0 if progress is None else len(progress.items),
        total=None if progress is None else progress.total,
        omitted=0 if progress is None else progress.omitted,
        scores=[] if result is None else list(result.models),
        differences=[] if result is None else list(result.differences),
        items=[] if progress is None else list(progress.items),
        error=error_of(task),
    )
