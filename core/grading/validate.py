"""Checks a grader beyond its schema, before any answer is graded.

Every error is an InvalidRequest with the path of the field, such as `grader.graders.x.input`.
"""

import json
from typing import Any, assert_never

from pydantic import ValidationError

from core.errors import InvalidRequest
from core.grading.answers import parts_of, request_of
from core.grading.formula import InvalidFormula, is_name, read_formula
from core.grading.label_model import label_schema
from core.grading.result import GraderFailed
from core.grading.score_model import SCHEMA
from core.grading.source import InvalidSource, check_source
from core.grading.template import InvalidTemplate, Variable, names_of
from core.grading.texts import single_graders, templates_of
from core.inference.invalid_body import invalid_object
from core.inference.schemas import ChatBody
from core.spec.grader import (
    Grader,
    LabelModelGrader,
    MultiGrader,
    PythonGrader,
    ScoreModelGrader,
    SingleGrader,
    StringCheckGrader,
    TextSimilarityGrader,
)
from core.spec.nearest import did_you_mean

SAMPLE_FIELDS = ("output_text", "output_json", "output_tools", "choices")
"""The variables of `sample`. OpenAI has `output_audio`, too; models of this service write text."""
MOST_GRADERS = 64
"""Of a multi grader."""


def check_grader(grader: Grader, path: str = "grader", *, has_sample: bool = True) -> None:
    """Raise InvalidRequest for the first error of a grader.

    Without `has_sample` there is no answer of a model, and a template may name items only.
    """
    for place, each in single_graders(grader, path):
        _check_single(each, place)
    for place, text in templates_of(grader, path):
        _check_template(text, place, has_sample)
    if isinstance(grader, MultiGrader):
        _check_formula(grader, path)
        _check_threshold(grader, path)
    require_json(grader.model_dump(), path)


def require_json(value: object, path: str) -> None:
    """Raise InvalidRequest for a value that JSON cannot have, although Python's parser takes it."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise _invalid(
            path,
            "it has half of a surrogate pair (an escape from \\ud800 to \\udfff), a NaN or an "
            "infinity, or is nested too deeply",
        ) from None


def _check_single(grader: SingleGrader, path: str) -> None:
    _check_threshold(grader, path)
    match grader:
        case ScoreModelGrader():
            low, high = grader.range
            if not low < high:
                raise _invalid(f"{path}.range", "it must be two numbers, the smaller first")
            _check_model(grader, path, SCHEMA)
        case LabelModelGrader():
            _check_labels(grader, path)
            _check_model(grader, path, label_schema(grader))
        case PythonGrader():
            try:
                check_source(grader.source)
            except InvalidSource as error:
                raise _invalid(f"{path}.source", str(error)) from None
        case StringCheckGrader() | TextSimilarityGrader():
            pass  # they have templates only
        case _:
            assert_never(grader)


def _check_labels(grader: LabelModelGrader, path: str) -> None:
    if len(set(grader.labels)) < len(grader.labels):
        raise _invalid(f"{path}.labels", "a label is repeated; remove one of them")
    for number, label in enumerate(grader.passing_labels):
        if label not in grader.labels:
            hint = did_you_mean(label, grader.labels)
            raise _invalid(
                f"{path}.passing_labels[{number}]", f"{label[:64]!r} is none of the labels", hint
            )


def _check_model(grader: ScoreModelGrader | LabelModelGrader, path: str, schema: Any) -> None:
    """Check the messages and the sampling parameters as those of a chat completion."""
    messages = []
    for number, message in enumerate(grader.input):
        try:
            parts = parts_of(message.content)
        except GraderFailed as failure:
            raise InvalidRequest(
                failure.details,
                param=f"{path}.input[{number}].content",
                code="unsupported_content",
            ) from None
        messages.append({"role": message.role, "content": [text for _, text in parts]})
    body = request_of(grader, messages, schema)
    try:
        ChatBody.model_validate(body)
    except ValidationError as error:
        found = invalid_object(error, body, ChatBody)
        raise InvalidRequest(
            found.message, param=f"{path}.{_place(found.param)}", code=found.code
        ) from None


def _place(param: str | None) -> str:
    """Return the field of a grader that has this field of a chat completion."""
    name = (param or "input").partition("[")[0].partition(".")[0]
    if name in ("model", "messages", "input"):
        return name.replace("messages", "input")
    return f"sampling_params.{name}".replace("max_completion_tokens", "max_completions_tokens")


def _check_template(text: str, path: str, has_sample: bool) -> None:
    try:
        variables = names_of(text)
    except InvalidTemplate as error:
        raise InvalidRequest(str(error), param=path, code="invalid_template") from None
    for variable in variables:
        if variable.namespace == "sample":
            _check_sample_field(variable, path, has_sample)


def _check_sample_field(variable: Variable, path: str, has_sample: bool) -> None:
    if not has_sample:
        message = f"{variable.written} has no value here, because no model answers; name item only."
        raise InvalidRequest(message, param=path, code="invalid_template")
    if variable.name not in SAMPLE_FIELDS:
        hint = did_you_mean(variable.name, SAMPLE_FIELDS)
        raise InvalidRequest(
            f"sample has no {variable.name[:64]!r}; use one of {', '.join(SAMPLE_FIELDS)}.{hint}",
            param=path,
            code="invalid_template",
        )


def _check_formula(grader: MultiGrader, path: str) -> None:
    if len(grader.graders) > MOST_GRADERS:
        raise _invalid(f"{path}.graders", f"there are more than {MOST_GRADERS}")
    where = f"{path}.calculate_output"
    try:
        formula = read_formula(grader.calculate_output)
    except InvalidFormula as error:
        raise InvalidRequest(
            f"calculate_output is wrong: {error}", param=where, code="formula_parse_error"
        ) from None
    for name in sorted(formula.names - grader.graders.keys()):
        hint = did_you_mean(name, grader.graders)
        if unusable := [key[:64] for key in grader.graders if not is_name(key)]:
            hint += (
                f" The key {unusable[0]!r} cannot be in a formula: use letters, digits and _ only."
            )
        raise InvalidRequest(
            f"calculate_output names {name[:64]!r}, which is none of the graders.{hint}",
            param=where,
            code="formula_parse_error",
        )


def _check_threshold(grader: Grader, path: str) -> None:
    threshold = getattr(grader, "pass_threshold", None)
    where = f"{path}.pass_threshold"
    if threshold is None:
        return
    if isinstance(grader, TextSimilarityGrader) and not 0 <= threshold <= 1:
        raise _invalid(where, f"similarities are from 0 to 1, so {threshold} is no threshold")
    if isinstance(grader, ScoreModelGrader) and threshold > grader.range[1]:
        raise _invalid(where, f"no score reaches it, because range ends at {grader.range[1]}")


def _invalid(path: str, reason: str, hint: str = "") -> InvalidRequest:
    return InvalidRequest(
        f"Invalid value for {path!r}: {reason}.{hint}", param=path, code="invalid_value"
    )
