"""Resolves the objective and task of a job from the request, its data's format and its base."""

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from core.catalog.combinations import require_combination
from core.catalog.describe import BaseFacts
from core.catalog.families import family_of
from core.catalog.formats import FORMATS
from core.catalog.hyperparameters import Hyperparameters
from core.catalog.objectives import OBJECTIVES, formats_of, methods_of, objective_of
from core.datasets.column_hints import mapping_json, rating_column
from core.errors import InvalidRequest
from core.spec.dataset import DatasetReport
from core.spec.objective import MethodName, ObjectiveSpec, Task
from core.spec.strategy import StrategySpec

SHOWN_LABELS = 5

_OBJECTIVES: TypeAdapter[ObjectiveSpec] = TypeAdapter(ObjectiveSpec)

_DEMONSTRATIONS = ("messages", "conversations", "instruction", "prompt")
"""The keys by which a row of demonstrations is recognized."""


def resolve_objective(
    report: DatasetReport, validation: DatasetReport | None, asked: Hyperparameters
) -> ObjectiveSpec:
    """Return the objective of the method for the training file's format.

    InvalidRequest if the method does not support the format, or if the validation file has another
    format than the training file.
    """
    assert report.format is not None, "a file without a format has no rows and is refused before"
    name = objective_of(asked.method, report.format)
    if name is None:
        raise _other_method(asked.method, report)
    fields = _labels(report) if OBJECTIVES[name].trains_head else asked.of_objective()
    objective = _OBJECTIVES.validate_python({"type": name, **fields})
    if validation is not None:
        _require_same_kind(report, validation)
    return objective


def resolve_task(
    asked: Task | None,
    objective: ObjectiveSpec,
    strategy: StrategySpec,
    facts: BaseFacts | None,
) -> Task:
    """Return the task of the tuned model; InvalidRequest for an unsupported combination.

    If the base is not on this machine (`facts` is None), a worker checks it; until then it counts
    as a decoder.
    """
    natural = OBJECTIVES[objective.type].tasks[0]
    if natural == "generation" and facts is None and asked == "seq2seq":
        natural = "seq2seq"
    if natural == "generation" and facts is not None:
        encodes = family_of(facts.model_type).kind == "encoder-decoder"
        natural = "seq2seq" if encodes else "generation"
    task = asked or natural
    if facts is not None:
        require_combination(facts.model_type, task, objective.type, strategy.type, facts.quantized)
    if task != natural:
        raise InvalidRequest(
            f"The task is {task!r}, but the training file and the base require {natural!r}.",
            param="task",
            code="impossible_combination",
        )
    return task


def _other_method(method: MethodName, report: DatasetReport) -> InvalidRequest:
    """Return the error of a method that does not support the format of the file."""
    format_ = report.format
    assert format_ is not None
    suited = _listed(map(repr, methods_of(format_)), "or")
    kinds = dict.fromkeys(FORMATS[each] for each in formats_of(method))
    learns = _listed((f"{kind.holds} ({kind.keys})" for kind in kinds), "or")
    return InvalidRequest(
        f"The training file has {FORMATS[format_].holds}; use the method {suited}. "
        f"The method {method!r} requires {learns}.{_label_hint(method, report)}",
        param="method.type",
        code="unsupported_method",
    )


def _label_hint(method: MethodName, report: DatasetReport) -> str:
    """Return a sentence about a column that may have ratings, or may have none, or nothing."""
    if report.format == "unpaired-preference" and not report.columns:
        key = next((each for each in _DEMONSTRATIONS if each in report.column_names), None)
        return f" If 'label' is no rating, use columns {mapping_json({key: key})}." if key else ""
    if "unpaired-preference" not in formats_of(method):
        return ""
    column = rating_column(report.unused_columns)
    if column is None:
        return ""
    if column == "label" and not report.columns:
        return " The column 'label' has no such value in the first row."
    columns = {**report.columns, "label": column}
    return f" If {column!r} has these values, use columns {mapping_json(columns)}."


def _listed(words: Iterable[str], conjunction: str) -> str:
    *most, last = words
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def _labels(report: DatasetReport) -> dict[str, Any]:
    """Return the options of a classifier; InvalidRequest for fewer than two labels."""
    if len(report.labels) < 2:
        only = f"only the label {report.labels[0]!r}" if report.labels else "no label"
        raise InvalidRequest(
            f"The rows of the training file have {only}. Classification needs at least two labels.",
            param="training_file",
            code="invalid_training_file",
        )
    return {"labels": report.labels, "multi_label": report.multi_label}


def _require_same_kind(training: DatasetReport, validation: DatasetReport) -> None:
    kinds = [_kind(training), _kind(validation)]
    if kinds[0] != kinds[1]:
        raise InvalidRequest(
            f"The validation file has {kinds[1]}, but the training file has {kinds[0]}.",
            param="validation_file",
            code="invalid_validation_file",
        )
    unknown = [label for label in validation.labels if label not in training.labels]
    if unknown:
        shown = ", ".join(map(repr, unknown[:SHOWN_LABELS]))
        raise InvalidRequest(
            f"The validation file has labels that the training file lacks: {shown}. Add training "
            "rows with these labels, or remove the rows.",
            param="validation_file",
            code="label_missing",
        )


def _kind(report: DatasetReport) -> str:
    assert report.format is not None, "a file without a format has no rows and is refused before"
    if report.format == "classification":
        return "several labels per row" if report.multi_label else "one label per row"
    return FORMATS[report.format].holds
