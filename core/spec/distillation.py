"""Distillations: a teacher answers prompts, graders choose, and a student trains on the answers."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.evals import EvalModel, SamplingSpec
from core.spec.grader import Grader
from core.spec.ids import FileId
from core.spec.job import JobSpec
from core.spec.numbers import Integer, Number
from core.spec.objective import MethodName

MOST_SAMPLES = 32
"""Answers to one prompt."""
MOST_GRADERS = 8
ANSWER_TOKENS = 256
"""That an answer is assumed to have when the job is planned, before there are answers."""


class DistillationStatus(StrEnum):
    """What the work of the distillation itself has come to; then its job has a status."""

    QUEUED = "queued"
    ASKING = "asking"
    """The teacher answers the prompts."""
    FILTERING = "filtering"
    """All prompts are answered. The answers are graded, and the training file is written."""
    TRAINING = "training"
    """The job exists. Final for the distillation's own work."""
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset(
    {DistillationStatus.TRAINING, DistillationStatus.FAILED, DistillationStatus.CANCELLED}
)

CandidateStatus = Literal["answered", "failed", "kept", "dropped"]
"""Of an answer, and of a prompt with all its answers.

`answered` until it is graded. `failed`: the teacher gave nothing that can be trained on; of a
prompt, no answer can. `dropped`: the filter refused it; of a prompt, all that can be trained on.
"""


class FilterSpec(Spec):
    """Which answers are kept: those that pass, and of these the best of each prompt."""

    graders: tuple[Grader, ...] = Field((), max_length=MOST_GRADERS)
    """An answer passes if it passes all of them."""
    pass_threshold: Number | None = None
    """That the mean of the scores must reach, too."""
    keep: Annotated[Integer, Field(ge=1, le=MOST_SAMPLES)] = 1
    """The best answers of each prompt that are kept, by the mean of their scores."""


class PromptsSpec(Spec):
    """Where the prompts are: lines with an `item`, or the rows of a dataset."""

    blob_key: str
    is_dataset: bool = False
    columns: dict[str, str] = Field(default_factory=dict, description="of a dataset")


class LabelledSpec(Spec):
    """A dataset of conversations whose rows are added to those of the teacher."""

    blob_key: str
    columns: dict[str, str] = Field(default_factory=dict)


class StudentPlan(Spec):
    """The job, checked and resolved before there is a training file.

    What depends on the number of its rows is resolved again from what was asked.
    """

    requested_model: str
    suffix: str | None
    validation_file: FileId | None
    metadata: dict[str, str] | None
    spec: JobSpec
    method: MethodName
    hyperparameters: dict[str, Any] = Field(description="as asked, of the method")
    training: dict[str, Any] = Field(description="the fields of the request that were set")
    hidden_size: int | None = Field(description="of the base; None: unknown to the API")
    must_download: bool


class DistillationRequest(Spec):
    """The input of the task of a distillation."""

    distillation_id: str
    prompts: PromptsSpec
    sampling: SamplingSpec
    """How the teacher is asked; its model is a key of `models`."""
    is_asked: bool
    """False: the prompts have answers, which are taken for those of the teacher."""
    samples: int
    """Answers to each prompt."""
    teacher_names: tuple[str, ...]
    """Of the model, in answers of an external endpoint."""
    filter: FilterSpec
    models: dict[str, EvalModel]
    """What the name of the teacher and those of graders' models meant at the creation."""
    max_failed_share: float
    """Of the prompts. With more failures, the distillation fails."""
    total: int
    labelled: LabelledSpec | None
    training_file: FileId
    """The id that the training file will have."""
    student: StudentPlan


class DistillationResult(Spec):
    """The output of the task; everything for the owner is in the rows of the distillation."""

    status: DistillationStatus
