"""What a job learns: from the request, the form of its data and the family of its base."""

from typing import assert_never

from api.jobs.hyperparameters import DpoHyperparameters, Hyperparameters
from core.catalog.cells import require_cell
from core.catalog.describe import BaseFacts
from core.catalog.families import family_of
from core.errors import InvalidRequest
from core.spec.dataset import DatasetReport
from core.spec.members import for_each
from core.spec.objective import (
    ClassificationSpec,
    DpoSpec,
    ObjectiveSpec,
    PretrainingSpec,
    SupervisedSpec,
    Task,
)
from core.spec.strategy import StrategySpec

SHOWN_LABELS = 5

_TASKS: dict[str, Task] = for_each(
    ObjectiveSpec,
    {
        "supervised": "generation",
        "pretraining": "generation",
        "dpo": "generation",
        "classification": "classification",
    },
)
"""Of a decoder; an encoder-decoder does seq2seq in place of generation."""


def resolve_objective(
    report: DatasetReport, validation: DatasetReport | None, asked: Hyperparameters
) -> ObjectiveSpec:
    """Return the objective that goes with the form of the training file.

    InvalidRequest when the method does not fit that form, or the validation file does not fit
    the training file.
    """
    is_dpo = isinstance(asked, DpoHyperparameters)
    if is_dpo != (report.format == "preference"):
        raise InvalidRequest(
            "The training file holds preferences, which the method 'dpo' learns from."
            if report.format == "preference"
            else "The method 'dpo' learns from preferences: rows with 'input', 'preferred_output' "
            "and 'non_preferred_output', or with 'prompt', 'chosen' and 'rejected'.",
            param="method.type",
            code="unsupported_method",
        )
    objective = _objective(report, asked)
    if validation is not None:
        _require_same_kind(report, validation)
    return objective


def resolve_task(
    asked: Task | None,
    objective: ObjectiveSpec,
    strategy: StrategySpec,
    facts: BaseFacts | None,
) -> Task:
    """Return the task of the tuned model; InvalidRequest for a combination that cannot be.

    A base that this machine does not have (`facts` is None) is looked at on a worker, and taken
    for a decoder until then.
    """
    natural = _TASKS[objective.type]
    if natural == "generation" and facts is None and asked == "seq2seq":
        natural = "seq2seq"
    if natural == "generation" and facts is not None:
        encodes = family_of(facts.model_type).kind == "encoder-decoder"
        natural = "seq2seq" if encodes else "generation"
    task = asked or natural
    if facts is not None:
        require_cell(facts.model_type, task, objective.type, strategy.type, facts.quantised)
    if task != natural:
        raise InvalidRequest(
            f"The task is {task!r}, but the training file and the base make it {natural!r}.",
            param="task",
            code="impossible_combination",
        )
    return task


def _objective(report: DatasetReport, asked: Hyperparameters) -> ObjectiveSpec:
    if isinstance(asked, DpoHyperparameters):
        smoothing = asked.label_smoothing
        if asked.beta == "auto":
            return DpoSpec(label_smoothing=smoothing)
        return DpoSpec(beta=asked.beta, label_smoothing=smoothing)
    match report.format:
        case "text":
            return PretrainingSpec()
        case "classification":
            if len(report.labels) < 2:
                only = f"only the label {report.labels[0]!r}" if report.labels else "no label"
                raise InvalidRequest(
                    f"The rows of the training file have {only}; there is nothing to tell apart. "
                    "Two labels are the least.",
                    param="training_file",
                    code="invalid_training_file",
                )
            return ClassificationSpec(labels=report.labels, multi_label=report.multi_label)
        case "chat" | "instruction" | "prompt-completion":
            return SupervisedSpec()
        case "preference" | None:
            raise AssertionError(f"files of format {report.format} are refused before")
        case _:
            assert_never(report.format)


def _require_same_kind(training: DatasetReport, validation: DatasetReport) -> None:
    kinds = [_kind(training), _kind(validation)]
    if kinds[0] != kinds[1]:
        raise InvalidRequest(
            f"The validation file holds {kinds[1]}, the training file {kinds[0]}.",
            param="validation_file",
            code="invalid_validation_file",
        )
    unknown = [label for label in validation.labels if label not in training.labels]
    if unknown:
        shown = ", ".join(map(repr, unknown[:SHOWN_LABELS]))
        raise InvalidRequest(
            f"The validation file has labels that the training file lacks: {shown}. No model can "
            "learn them; add training rows with these labels or take the rows out.",
            param="validation_file",
            code="label_missing",
        )


def _kind(report: DatasetReport) -> str:
    match report.format:
        case "preference":
            return "preferences"
        case "text":
            return "plain text"
        case "classification":
            return "several labels per row" if report.multi_label else "one label per row"
        case "chat" | "instruction" | "prompt-completion":
            return "demonstrations"
        case None:
            raise AssertionError("a file without a format has no rows and is refused before")
        case _:
            assert_never(report.format)
