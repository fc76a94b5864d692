"""What a grader gives: a score, or the flag of what went wrong."""

from dataclasses import dataclass, field
from typing import Any, Literal

ErrorFlag = Literal[
    "formula_parse_error",
    "sample_parse_error",
    "invalid_variable_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
    "other_error",
]
"""OpenAI's flags that are ever set."""

UNSET_ERRORS: dict[str, bool | str | None] = {
    "formula_parse_error": False,
    "sample_parse_error": False,
    "truncated_observation_error": False,
    "unresponsive_reward_error": False,
    "invalid_variable_error": False,
    "other_error": False,
    "python_grader_server_error": False,
    "python_grader_server_error_type": None,
    "python_grader_runtime_error": False,
    "python_grader_runtime_error_details": None,
    "model_grader_server_error": False,
    "model_grader_refusal_error": False,
    "model_grader_parse_error": False,
    "model_grader_server_error_details": None,
    "details": None,
}
"""All of OpenAI's fields without an error, and `details`, which is ours."""

LONGEST_DETAILS = 2000
"""Characters of a message; a Python traceback keeps its end, which names the error."""

SLACK = 1e-9
"""A formula such as 0.1 * 3 + 0.7 reaches a threshold that it misses by rounding only."""


@dataclass(frozen=True)
class Grade:
    """The result of a grader. `score` is 0 when there is an error."""

    score: float
    passed: bool
    """The score reaches the grader's threshold; without one, it is at least 1 (text similarity and
    scores of models: at least half of the range)."""
    errors: dict[str, bool | str | None] = field(default_factory=dict)
    """OpenAI's flags that are set, by name, with details: `sample_parse_error`, …"""
    sub_scores: dict[str, float] = field(default_factory=dict)
    """Of a multi grader, by key."""
    tokens_by_model: dict[str, int] = field(default_factory=dict)
    """Tokens that model graders used."""
    sampled_model: str | None = None
    completions: tuple[dict[str, Any], ...] = ()
    """The answers of model graders, with their prompts: `messages` and `completion`."""


class GraderFailed(Exception):
    """One answer cannot be graded; `details` says why, for the owner of the grader."""

    def __init__(self, flag: ErrorFlag, details: str, *, kind: str | None = None) -> None:
        super().__init__(details)
        self.flag = flag
        self.details = details
        self.kind = kind
        """The type of an error of the service, for OpenAI's field of this name."""


def errors_of(failure: GraderFailed) -> dict[str, bool | str | None]:
    """Return the fields of a failure that are set, each under OpenAI's name if it has one."""
    details = _shortened(failure.details)
    errors: dict[str, bool | str | None] = {failure.flag: True, "details": details}
    if f"{failure.flag}_details" in UNSET_ERRORS:
        errors[f"{failure.flag}_details"] = details
    if f"{failure.flag}_type" in UNSET_ERRORS:
        errors[f"{failure.flag}_type"] = failure.kind
    return errors


def failed(failure: GraderFailed) -> Grade:
    """Return the result of an answer that cannot be graded."""
    return Grade(0.0, False, errors_of(failure))


def reaches(score: float, threshold: float) -> bool:
    """Return whether a score passes."""
    return score >= threshold - SLACK


def _shortened(details: str) -> str:
    if len(details) <= LONGEST_DETAILS:
        return details
    half = LONGEST_DETAILS // 2
    return f"{details[:half]} … {details[-half:]}"
