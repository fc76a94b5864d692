"""The bodies of the routes for models without a job."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.jobs.schemas import Suffix
from api.shown_tasks import TaskError, TaskStatus, error_of, finished_at, status_of
from core.records.tables import Task
from core.spec.ids import FileId, ModelId
from core.spec.made_model import (
    MOST_FILES,
    ImportRequest,
    MadeModel,
    MakingProgress,
    SoupRequest,
    Stage,
)
from core.spec.making import MOST_SOURCES
from core.spec.numbers import Flag, Number
from core.spec.objective import MAX_LABELS
from core.spec.objective import Task as ModelTask
from core.spec.parity import Parity
from core.spec.strategy import StrategySpec

_Name = StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00]*$")


class CreateImport(BaseModel):
    """Which adapter belongs to which base. Either `file`, an archive, or `files`, its folder."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[ModelId, _Name]
    """A base of the catalog."""
    file: Annotated[FileId, _Name] | None = None
    files: Annotated[list[Annotated[FileId, _Name]], Field(max_length=MOST_FILES)] = []
    suffix: Suffix | None = None
    labels: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=512)]],
        Field(max_length=MAX_LABELS),
    ] = []
    """Of a classifier, in the order of its head; by default those of the archive's config.json."""
    multi_label: Flag = False


class CreateSoup(BaseModel):
    """Which models are added. Without weights, each has the same share."""

    model_config = ConfigDict(extra="forbid")

    models: Annotated[list[Annotated[ModelId, _Name]], Field(min_length=2, max_length=MOST_SOURCES)]
    weights: Annotated[
        list[Annotated[Number, Field(ge=-10, le=10)]], Field(max_length=MOST_SOURCES)
    ] = []
    suffix: Suffix | None = None


class _MakingObject(BaseModel):
    """A model in the making. The fields after `error` are null until it exists."""

    id: str
    created_at: int
    finished_at: int | None
    status: TaskStatus
    stage: Stage | None
    base: str
    error: TaskError | None
    model: str | None
    """Answers requests, unless its parity failed."""
    task: ModelTask | None
    strategy: StrategySpec | None
    parameters: int | None
    parity: Parity | None
    """The comparison of the engine with PEFT."""
    warnings: list[str]


class ImportObject(_MakingObject):
    object: Literal["model.import"] = "model.import"
    files: list[str]


class SoupObject(_MakingObject):
    object: Literal["model.soup"] = "model.soup"
    models: list[str]
    weights: list[float]


def import_object(task: Task) -> ImportObject:
    request = ImportRequest.model_validate(task.payload)
    files = [file.id for file in request.files]
    return ImportObject(**_common(task, request), files=files)


def soup_object(task: Task) -> SoupObject:
    request = SoupRequest.model_validate(task.payload)
    models = [model.id for model in request.models]
    return SoupObject(**_common(task, request), models=models, weights=list(request.weights))


def _common(task: Task, request: ImportRequest | SoupRequest) -> dict[str, object]:
    made = None if task.result is None else MadeModel.model_validate(task.result)
    return {
        "id": task.id,
        "created_at": int(task.created_at),
        "finished_at": finished_at(task),
        "status": status_of(task),
        "stage": _stage(task),
        "base": request.base.id,
        "error": error_of(task),
        "model": made and made.model,
        "task": made and made.tuned.task,
        "strategy": made and made.tuned.strategy,
        "parameters": made and made.parameters,
        "parity": made and made.parity,
        "warnings": list(made.warnings) if made else [],
    }


def _stage(task: Task) -> Stage | None:
    if task.progress is None or status_of(task) != "running":
        return None
    return MakingProgress.model_validate(task.progress).stage
