"""Evals: what a run's items are and how they are answered and graded; the input of its task."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.batch import BatchModel
from core.spec.dataset import LineError
from core.spec.grader import Grader, GraderMessage

MAX_ITEMS = 50_000
"""Of one run."""
MAX_CRITERIA = 50
"""Testing criteria of one eval."""
MAX_SCHEMA_BYTES = 64 << 10
"""Of the JSON schema of an eval's items."""
MAX_FIELDS = 200
"""Names of fields of the items that the report of a run has as columns."""


class EvalRunStatus(StrEnum):
    """OpenAI's statuses, with its spelling."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    """Every item has a result, which may be an error."""
    CANCELED = "canceled"
    FAILED = "failed"
    """The run itself could not end; the results so far are kept."""


FINAL = frozenset({EvalRunStatus.COMPLETED, EvalRunStatus.CANCELED, EvalRunStatus.FAILED})

ItemStatus = Literal["pass", "fail", "error"]
"""Of an item: all criteria pass, one does not, or the model or a grader failed."""


class EvalFileReport(Spec):
    """The result of checking every line of a file of items. A run needs one without errors."""

    rows: int
    faults: tuple[LineError, ...] = Field(description="the first ones, up to a limit")
    fault_count: int = Field(description="all errors, listed or not")
    fields: tuple[str, ...] = Field((), description="that the items have, up to a limit")

    @property
    def usable(self) -> bool:
        return self.rows > 0 and self.fault_count == 0


class ExternalModel(Spec):
    """A model of an external endpoint, which the operator has registered."""

    endpoint: str
    model: str
    """The name that the endpoint knows."""

    @property
    def id(self) -> str:
        """Return the name that requests use."""
        return f"{self.endpoint}/{self.model}"


EvalModel = BatchModel | ExternalModel


class TemplateMessages(Spec):
    """Messages with variables of the item, such as `{{item.question}}`."""

    type: Literal["template"]
    template: tuple[GraderMessage, ...] = Field(min_length=1)


class ReferencedMessages(Spec):
    """A list of messages in the item, such as `item.input`."""

    type: Literal["item_reference"]
    item_reference: str = Field(pattern=r"^item(\.[^.\s]+)+$", max_length=255)


InputMessages = Annotated[TemplateMessages | ReferencedMessages, Field(discriminator="type")]


class SamplingSpec(Spec):
    """How the answers of a run are sampled."""

    url: Literal["/v1/chat/completions", "/v1/responses"]
    model: str
    """A key of `models` of the run."""
    input_messages: InputMessages
    params: dict[str, Any] = Field(description="fields of each request besides the messages")


class EvalRunRequest(Spec):
    """The input of the task of a run."""

    run_id: str
    blob_key: str
    """The items: a line each, with `item` and perhaps `sample`."""
    criteria: tuple[Grader, ...]
    sampling: SamplingSpec | None
    """None: the lines have the answers."""
    models: dict[str, EvalModel]
    """What each name meant when the run was created: of the run and of its graders."""


class EvalRunResult(Spec):
    """The output of the task; everything for the owner is in the rows of the run."""

    status: EvalRunStatus


def result_names(criteria: tuple[Grader, ...]) -> list[str]:
    """Return the name of each criterion in results: its own, with a number if it is repeated."""
    names: list[str] = []
    for criterion in criteria:
        name, number = criterion.name, 1
        while name in names:
            number += 1
            name = f"{criterion.name} ({number})"
        names.append(name)
    return names
