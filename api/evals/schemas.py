"""OpenAI's objects of evals, their runs and the results of items."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.evals.data_sources import DataSource
from api.metadata import Metadata
from api.pagination import ListItem
from core.evals.item_schema import shown_config
from core.records.tables import Eval, EvalRun, EvalRunItem
from core.spec.evals import MAX_CRITERIA, EvalRunStatus
from core.spec.grader import Grader
from core.spec.numbers import Flag

Name = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00]*$")]
StatusFilter = Literal["queued", "in_progress", "completed", "canceled", "failed"]


class CustomConfig(BaseModel):
    """Items of any shape, which a JSON schema describes."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["custom"]
    item_schema: dict[str, Any]
    include_sample_schema: Flag = False
    """Whether criteria may name `sample`, the answer of a model."""


class StoredConfig(BaseModel):
    """Requests that this service has answered and stored."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["logs", "stored_completions"]
    metadata: Metadata | None = None


DataSourceConfig = Annotated[CustomConfig | StoredConfig, Field(discriminator="type")]


class CreateEval(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    metadata: Metadata | None = None
    data_source_config: DataSourceConfig
    testing_criteria: Annotated[list[Grader], Field(min_length=1, max_length=MAX_CRITERIA)]


class UpdateEval(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    metadata: Metadata | None = None


class CreateRun(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    metadata: Metadata | None = None
    data_source: DataSource


class EvalObject(ListItem):
    object: Literal["eval"] = "eval"
    name: str
    data_source_config: dict[str, Any]
    testing_criteria: list[dict[str, Any]]
    created_at: int
    metadata: dict[str, str] | None


class ResultCounts(BaseModel):
    """An item whose answer or grading has failed is `errored`."""

    total: int
    errored: int
    failed: int
    passed: int


class CriterionCounts(BaseModel):
    testing_criteria: str
    passed: int
    failed: int


class UsageObject(BaseModel):
    model_name: str
    invocation_count: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


class RunError(BaseModel):
    code: str
    message: str


class RunObject(ListItem):
    object: Literal["eval.run"] = "eval.run"
    eval_id: str
    status: EvalRunStatus
    model: str
    """Empty if the items have the answers."""
    name: str
    created_at: int
    report_url: str
    result_counts: ResultCounts
    per_model_usage: list[UsageObject]
    per_testing_criteria_results: list[CriterionCounts]
    data_source: dict[str, Any]
    metadata: dict[str, str] | None
    error: RunError | None


class OutputItemObject(ListItem):
    object: Literal["eval.run.output_item"] = "eval.run.output_item"
    run_id: str
    eval_id: str
    created_at: int
    status: str
    datasource_item_id: int
    datasource_item: dict[str, Any]
    results: list[dict[str, Any]]
    sample: dict[str, Any]


class DeletedEval(BaseModel):
    object: Literal["eval.deleted"] = "eval.deleted"
    deleted: Literal[True] = True
    eval_id: str


class DeletedRun(BaseModel):
    object: Literal["eval.run.deleted"] = "eval.run.deleted"
    deleted: Literal[True] = True
    run_id: str


def eval_object(eval_: Eval) -> EvalObject:
    return EvalObject(
        id=eval_.id,
        name=eval_.name,
        data_source_config=shown_config(eval_.data_source_config),
        testing_criteria=eval_.criteria,
        created_at=int(eval_.created_at),
        metadata=eval_.user_metadata,
    )


def run_object(run: EvalRun, data_source: dict[str, Any], names: list[str], url: str) -> RunObject:
    """Return the object of a run; `names` are those of its criteria, `url` that of the service."""
    counts = zip(names, run.criteria_counts, strict=True)
    return RunObject(
        id=run.id,
        eval_id=run.eval_id,
        status=EvalRunStatus(run.status),
        model=run.model or "",
        name=run.name,
        created_at=int(run.created_at),
        report_url=f"{url}/v1/evals/{run.eval_id}/runs/{run.id}/report",
        result_counts=ResultCounts(
            total=run.total, errored=run.errored, failed=run.failed, passed=run.passed
        ),
        per_model_usage=[UsageObject.model_validate(each) for each in run.usage],
        per_testing_criteria_results=[
            CriterionCounts(testing_criteria=name, **count) for name, count in counts
        ],
        data_source=data_source,
        metadata=run.user_metadata,
        error=None if run.error is None else RunError.model_validate(run.error),
    )


def item_object(item: EvalRunItem, run: EvalRun) -> OutputItemObject:
    return OutputItemObject(
        id=item.id,
        run_id=run.id,
        eval_id=run.eval_id,
        created_at=int(item.created_at),
        status=item.status,
        datasource_item_id=item.number,
        **item.body,
    )
