"""The bodies of the graders' routes, in OpenAI's form."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from core.grading.result import UNSET_ERRORS, Grade
from core.spec.grader import Grader


class RunGrader(BaseModel):
    """`RunGraderRequest`."""

    model_config = ConfigDict(extra="forbid")

    grader: Grader
    item: dict[str, Any] | None = None
    model_sample: str


class ValidateGrader(BaseModel):
    """`ValidateGraderRequest`."""

    model_config = ConfigDict(extra="forbid")

    grader: Grader


class ValidGrader(BaseModel):
    """`ValidateGraderResponse`: the grader as it was sent. One without a name has its type."""

    grader: dict[str, Any]


def valid_grader(grader: Grader) -> ValidGrader:
    """Return the response for a grader without errors."""
    sent = grader.model_dump(mode="json", exclude_unset=True)
    for each in (sent, *sent.get("graders", {}).values()):
        each.setdefault("name", each["type"])
    return ValidGrader(grader=sent)


class GraderErrors(BaseModel):
    formula_parse_error: bool
    sample_parse_error: bool
    truncated_observation_error: bool
    unresponsive_reward_error: bool
    invalid_variable_error: bool
    other_error: bool
    python_grader_server_error: bool
    python_grader_server_error_type: str | None
    python_grader_runtime_error: bool
    python_grader_runtime_error_details: str | None
    model_grader_server_error: bool
    model_grader_refusal_error: bool
    model_grader_parse_error: bool
    model_grader_server_error_details: str | None
    details: str | None
    """Tunesmith's: what went wrong, for every flag."""


class GraderMetadata(BaseModel):
    name: str
    type: str
    errors: GraderErrors
    execution_time: float
    """Seconds."""
    scores: dict[str, float]
    token_usage: int | None
    sampled_model_name: str | None
    passed: bool
    """Tunesmith's: whether the reward reaches the threshold."""


class GraderRun(BaseModel):
    """`RunGraderResponse`."""

    reward: float
    metadata: GraderMetadata
    sub_rewards: dict[str, float]
    model_grader_token_usage_per_model: dict[str, int]


def grader_run(grader: Grader, result: Grade, seconds: float) -> GraderRun:
    """Return the response for a graded answer."""
    tokens = sum(result.tokens_by_model.values())
    metadata = GraderMetadata(
        name=grader.name,
        type=grader.type,
        errors=GraderErrors.model_validate(UNSET_ERRORS | result.errors),
        execution_time=seconds,
        scores=result.sub_scores,
        token_usage=tokens if result.tokens_by_model else None,
        sampled_model_name=result.sampled_model,
        passed=result.passed,
    )
    return GraderRun(
        reward=result.score,
        metadata=metadata,
        sub_rewards=result.sub_scores,
        model_grader_token_usage_per_model=result.tokens_by_model,
    )
