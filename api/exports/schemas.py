"""The bodies of the export routes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from api.pagination import ListItem
from api.shown_tasks import TaskError, TaskStatus, error_of, finished_at, status_of
from core.records.tables import Task
from core.spec.export import (
    ExportedFile,
    ExportForm,
    ExportFormat,
    ExportProgress,
    ExportReplay,
    ExportRequest,
    ExportResult,
    ExportStage,
    GgufQuantization,
    MergeInto,
    PushResult,
)
from core.spec.numbers import Flag
from core.spec.precision import NumberFormat

Repository = Annotated[
    str,
    StringConstraints(max_length=96, pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"),
]
"""The id of a repository on the hub: an owner and a name."""


class PushBody(BaseModel):
    """Where the files are pushed. The hub is that of the operator's settings."""

    model_config = ConfigDict(extra="forbid")

    repository: Repository
    token: Annotated[SecretStr, Field(min_length=1, max_length=512)]
    """With write access. It is stored encrypted, until the export ends, and never returned."""
    private: Flag = True
    """Of a repository that does not exist yet."""


class CreateExport(BaseModel):
    """What is written. Options belong to formats: see docs/exports.md."""

    model_config = ConfigDict(extra="forbid")

    format: ExportFormat
    form: ExportForm | None = None
    """Of `vllm` and `huggingface`: a complete model, or the adapter. Merged by default."""
    precision: NumberFormat | None = None
    """Of dense weights; by default as the base stores them."""
    quantization: GgufQuantization | None = None
    """Of `gguf`: `f16` by default."""
    merge_into: MergeInto | None = None
    """Of a qlora model: into the weights of its `base`, as it is served, or into `dequantized`
    ones, as it was trained."""
    push_to: PushBody | None = None


class ExportObject(ListItem):
    """An export. It is complete once it has succeeded; `replay` compares it with the served model.

    An export whose replay is `marked` is kept, but differs more than its format explains.
    """

    object: Literal["model.export"] = "model.export"
    model: str
    created_at: int
    finished_at: int | None
    status: TaskStatus
    stage: ExportStage | None
    """What a running export does."""
    format: ExportFormat
    form: ExportForm
    precision: NumberFormat | None
    quantization: GgufQuantization | None
    merge_into: MergeInto
    bytes: int | None
    """Of the archive."""
    sha256: str | None
    files: list[ExportedFile]
    replay: ExportReplay | None
    notes: list[str]
    push: PushResult | None
    error: TaskError | None


class DeletedExport(BaseModel):
    id: str
    object: Literal["model.export"] = "model.export"
    deleted: Literal[True] = True


def export_object(task: Task) -> ExportObject:
    request = ExportRequest.model_validate(task.payload)
    options = request.options
    progress = None if task.progress is None else ExportProgress.model_validate(task.progress)
    result = None if task.result is None else ExportResult.model_validate(task.result)
    return ExportObject(
        id=task.id,
        model=request.model,
        created_at=int(task.created_at),
        finished_at=finished_at(task),
        status=status_of(task),
        stage=None if progress is None or status_of(task) != "running" else progress.stage,
        format=options.format,
        form=options.form,
        precision=options.precision,
        quantization=options.quantization,
        merge_into=options.merge_into,
        bytes=None if result is None else result.content.bytes,
        sha256=None if result is None else result.content.sha256,
        files=[] if result is None else list(result.content.files),
        replay=None if result is None else result.replay,
        notes=[] if result is None else list(result.notes),
        push=None if result is None else result.push,
        error=error_of(task),
    )
