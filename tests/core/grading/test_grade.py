"""Each kind of grader on one answer: the score, whether it passes, and every flag."""

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter

from core.errors import Conflict, InvalidRequest, NotFound, TunesmithError, Unavailable
from core.grading.grade import Grade, grade
from core.grading.result import LONGEST_DETAILS, UNSET_ERRORS
from core.grading.sample import Sample, sample_of_completion, sample_of_text
from core.spec.engine_protocol import EngineKeyRefused
from core.spec.grader import Grader, PythonOutcome
from tests.core.grading.scripted_judges import ScriptedJudges

GRADERS: TypeAdapter[Grader] = TypeAdapter(Grader)

STRING: dict[str, Any] = {
    "type": "string_check",
    "name": "s",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
SIMILAR: dict[str, Any] = {
    "type": "text_similarity",
    "name": "t",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "evaluation_metric": "fuzzy_match",
}
SCORE: dict[str, Any] = {
    "type": "score_model",
    "name": "m",
    "model": "judge",
    "input": [
        {"role": "developer", "content": "Grade from 0 to 1."},
        {"role": "user", "content": "{{item.answer}} or {{sample.output_text}}?"},
    ],
}
LABEL: dict[str, Any] = {
    "type": "label_model",
    "name": "l",
    "model": "judge",
    "input": [{"role": "user", "content": {"type": "input_text", "text": "{{item.answer}}"}}],
    "labels": ["good", "fair", "bad"],
    "passing_labels": ["good", "fair"],
}
PYTHON: dict[str, Any] = {"type": "python", "source": "def grade(sample, item):\n    return 1.0"}


def graded(
    grader: Mapping[str, Any],
    text: str | Sample = "Paris",
    item: Mapping[str, Any] | None = None,
    judges: ScriptedJudges | None = None,
) -> Grade:
    sample = sample_of_text(text) if isinstance(text, str) else text
    spec = GRADERS.validate_python(grader)
    item = {"answer": "Paris"} if item is None else item
    return asyncio.run(grade(spec, item, sample, judges or ScriptedJudges()))


def flags(result: Grade) -> set[str]:
    """The flags of a result, which all have the score 0 and say what is wrong."""
    assert (result.score, result.passed) == (0.0, False)
    assert result.errors["details"]
    assert result.errors.keys() <= UNSET_ERRORS.keys()
    return {name for name, value in result.errors.items() if value is True}


@pytest.mark.parametrize(
    ("operation", "text", "answer", "score"),
    [
        ("eq", "Paris", "Paris", 1),
        ("eq", "paris", "Paris", 0),
        ("eq", "Paris ", "Paris", 0),
        ("ne", "paris", "Paris", 1),
        ("ne", "Paris", "Paris", 0),
        ("neq", "paris", "Paris", 1),
        ("like", "In Paris.", "Paris", 1),
        ("like", "in paris.", "Paris", 0),
        ("like", "Par", "Paris", 0),
        ("ilike", "IN PARIS.", "Paris", 1),
        ("ilike", "STRASSE", "straße", 1),
        ("ilike", "Rome", "Paris", 0),
        ("like", "anything", "", 1),
        ("like", "100%", "_%", 0),
    ],
)
def test_strings_are_compared(operation: str, text: str, answer: str, score: int) -> None:
    result = graded(STRING | {"operation": operation}, text, {"answer": answer})
    assert (result.score, result.passed, result.errors) == (score, bool(score), {})


def test_numbers_are_compared_as_they_are_written() -> None:
    assert graded(STRING, "1.0", {"answer": 1.0}).passed
    assert not graded(STRING, "1", {"answer": 1.0}).passed


@pytest.mark.parametrize(
    ("threshold", "text", "passed"),
    [(None, "Parjs", True), (None, "Oslo", False), (0.9, "Parjs", False), (0.8, "Parjs", True)],
)
def test_similarity_passes_at_its_threshold(
    threshold: float | None, text: str, passed: bool
) -> None:
    """`fuzzy_match` of Paris and Parjs is 0.8."""
    assert graded(SIMILAR | {"pass_threshold": threshold}, text).passed is passed


@pytest.mark.parametrize(
    ("vectors", "score"),
    [
        ({"Paris": [1.0, 0.0], "Rome": [2.0, 0.0]}, 1.0),
        ({"Paris": [1.0, 0.0], "Rome": [1.0, 1.0]}, 2**-0.5),
        ({"Paris": [1.0, 0.0], "Rome": [-1.0, 0.0]}, 0.0),
        ({"Paris": [1.0, 0.0], "Rome": [0.0, 0.0]}, 0.0),
    ],
)
def test_cosine_is_that_of_the_embeddings(vectors: dict[str, list[float]], score: float) -> None:
    judges = ScriptedJudges(vectors=vectors)
    result = graded(SIMILAR | {"evaluation_metric": "cosine"}, "Rome", judges=judges)
    assert result.score == pytest.approx(score)


def test_cosine_of_nothing_needs_no_model() -> None:
    cosine = SIMILAR | {"evaluation_metric": "cosine"}
    assert graded(cosine, "", {"answer": ""}).score == 1
    assert graded(cosine, "", {"answer": "x"}).score == 0


def test_text_that_cannot_be_embedded_is_an_error_of_the_grader() -> None:
    judges = ScriptedJudges(vectors=InvalidRequest("The text is too long."))
    result = graded(SIMILAR | {"evaluation_metric": "cosine"}, "x", judges=judges)
    assert flags(result) == {"other_error"}
    assert "too long" in str(result.errors["details"])


@pytest.mark.parametrize(
    ("bounds", "said", "score", "passed"),
    [
        ([0, 1], 0.75, 0.75, True),
        ([0, 1], 0.5, 0.5, True),
        ([0, 1], 0.4, 0.4, False),
        ([0, 1], 7, 1.0, True),
        ([0, 1], -1.0, 0.0, False),
        ([-1, 1], -3, -1.0, False),
        ([-1, 1], 0, 0.0, True),
        ([1, 10], 10**400, 10.0, True),
    ],
)
def test_score_of_a_model_is_cut_to_its_range(
    bounds: list[float], said: float, score: float, passed: bool
) -> None:
    judges = ScriptedJudges({"steps": [], "result": said})
    result = graded(SCORE | {"range": bounds}, judges=judges)
    assert (result.score, result.passed, result.errors) == (score, passed, {})


def test_model_is_asked_for_steps_and_a_result() -> None:
    params = {"seed": 4, "top_p": 0.5, "temperature": 0, "reasoning_effort": "low"}
    judges = ScriptedJudges({"steps": [], "result": 1})
    result = graded(
        SCORE | {"sampling_params": params | {"max_completions_tokens": 9}}, "Lyon", judges=judges
    )
    [body] = judges.bodies
    assert body["messages"] == [
        {"role": "developer", "content": "Grade from 0 to 1."},
        {"role": "user", "content": "Paris or Lyon?"},
    ]
    assert {name: body[name] for name in params} == params
    assert body["max_completion_tokens"] == 9
    schema = body["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["steps", "result"]
    assert result.tokens_by_model == {"resolved-judge": 12}
    assert result.sampled_model == "resolved-judge"
    assert result.completions[0]["messages"] == body["messages"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_limit_of_tokens_may_have_the_name_of_a_completion(name: str) -> None:
    judges = ScriptedJudges({"result": "good"})
    graded(LABEL | {"sampling_params": {name: 5}}, judges=judges)
    assert judges.bodies[0]["max_completion_tokens"] == 5


@pytest.mark.parametrize(("label", "score"), [("good", 1.0), ("fair", 1.0), ("bad", 0.0)])
def test_passing_label_is_one(label: str, score: float) -> None:
    judges = ScriptedJudges({"result": label})
    result = graded(LABEL, judges=judges)
    assert (result.score, result.passed, result.errors) == (score, bool(score), {})
    [body] = judges.bodies
    allowed = body["response_format"]["json_schema"]["schema"]["properties"]["result"]["enum"]
    assert allowed == LABEL["labels"]
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Paris"}]}]


@pytest.mark.parametrize("grader", [SCORE, LABEL])
@pytest.mark.parametrize(
    "said",
    [
        "I would say 0.7",
        "",
        "null",
        "[0.7]",
        '{"steps": []}',
        '{"result": null}',
        '{"result": true}',
        '{"result": "0.7"}',
        '{"result": [1]}',
        '{"result": NaN}',
        "[" * 9000,
    ],
)
def test_answer_without_a_result_is_a_parse_error(grader: dict[str, Any], said: str) -> None:
    """Its tokens were used all the same."""
    result = graded(grader, judges=ScriptedJudges(said))
    assert flags(result) == {"model_grader_parse_error"}
    assert result.tokens_by_model == {"resolved-judge": 12}
    assert len(result.completions) == 1


def test_answer_that_was_cut_off_says_what_to_raise() -> None:
    result = graded(SCORE, judges=ScriptedJudges('{"steps": [', finish_reason="length"))
    assert flags(result) == {"model_grader_parse_error"}
    assert "max_completions_tokens" in str(result.errors["details"])


def test_refusal_of_a_model_has_its_flag() -> None:
    result = graded(SCORE, judges=ScriptedJudges("", refusal="I cannot grade this."))
    assert flags(result) == {"model_grader_refusal_error"}


@pytest.mark.parametrize(
    "error", [InvalidRequest("too long"), NotFound("gone"), Conflict("no"), TunesmithError("bad")]
)
def test_request_that_the_service_refuses_is_a_server_error(error: TunesmithError) -> None:
    result = graded(LABEL, judges=ScriptedJudges(error))
    assert flags(result) == {"model_grader_server_error"}
    assert error.message in str(result.errors["model_grader_server_error_details"])


@pytest.mark.parametrize("error", [Unavailable("Try again."), EngineKeyRefused("Wrong key.")])
def test_outage_is_no_grade(error: TunesmithError) -> None:
    judges = ScriptedJudges(error, vectors=error, python=error)
    outages = [SCORE, LABEL, SIMILAR | {"evaluation_metric": "cosine"}, PYTHON]
    several = {"type": "multi", "graders": {"a": SCORE}, "calculate_output": "a"}
    for grader in [*outages, several] if isinstance(error, Unavailable) else [SCORE, LABEL]:
        with pytest.raises(type(error)):
            graded(grader, "x", judges=judges)


@pytest.mark.parametrize(
    ("returned", "threshold", "passed"),
    [(1.0, None, True), (0.999, None, False), (0.4, 0.4, True), (-2.0, None, False)],
)
def test_python_gives_the_score(returned: float, threshold: float | None, passed: bool) -> None:
    judges = ScriptedJudges(python=lambda sample, item: PythonOutcome(score=returned))
    result = graded(PYTHON | {"pass_threshold": threshold}, judges=judges)
    assert (result.score, result.passed, result.errors) == (returned, passed, {})
    [(source, sample, item)] = judges.ran
    assert (source, item) == (PYTHON["source"], {"answer": "Paris"})
    assert sample["output_text"] == "Paris"
    assert sample["choices"][0]["message"]["content"] == "Paris"
    json.dumps(sample)


@pytest.mark.parametrize("returned", [math.nan, math.inf, -math.inf, None])
def test_python_must_give_a_number(returned: float | None) -> None:
    judges = ScriptedJudges(python=lambda sample, item: PythonOutcome(score=returned))
    assert flags(graded(PYTHON, judges=judges)) == {"python_grader_runtime_error"}


def test_exception_of_python_keeps_its_end() -> None:
    trace = "Traceback\n" + "x" * 9000 + "\nZeroDivisionError: division by zero"
    judges = ScriptedJudges(python=lambda sample, item: PythonOutcome(score=None, error=trace))
    result = graded(PYTHON, judges=judges)
    assert flags(result) == {"python_grader_runtime_error"}
    details = str(result.errors["python_grader_runtime_error_details"])
    assert details.endswith("division by zero") and len(details) <= LONGEST_DETAILS + 3


def test_machine_without_a_sandbox_is_a_server_error() -> None:
    error = InvalidRequest("No sandbox here.", code="sandbox_unavailable")
    result = graded(PYTHON, judges=ScriptedJudges(python=error))
    assert flags(result) == {"python_grader_server_error"}
    assert result.errors["python_grader_server_error_type"] == "sandbox_unavailable"


def test_several_graders_give_one_score() -> None:
    """OpenAI's example of a name and an address in JSON."""
    name = SIMILAR | {"input": "{{sample.output_json.name}}", "reference": "{{item.name}}"}
    email = STRING | {"input": "{{sample.output_json.email}}", "reference": "{{item.email}}"}
    several = {
        "type": "multi",
        "graders": {"name": name | {"pass_threshold": 0.9}, "email": email},
        "calculate_output": "(name + email) / 2",
        "pass_threshold": 0.9,
    }
    item = {"name": "John Doe", "email": "john@example.com"}
    result = graded(several, json.dumps(item | {"name": "John Do"}), item)
    assert result.sub_scores == {"name": pytest.approx(14 / 15), "email": 1.0}
    assert (result.score, result.passed) == (pytest.approx(29 / 30), True)
    result = graded(several, json.dumps(item | {"email": "x"}), item)
    assert (result.score, result.passed) == (0.5, False)
    assert flags(graded(several, "John Doe", item)) == {"sample_parse_error"}


def test_tool_calls_are_graded_by_name_and_arguments() -> None:
    """OpenAI's example for tools. Its second grader builds JSON around a variable."""
    name = STRING | {
        "input": "get_acceptors",
        "reference": "{{sample.output_tools[0].function.name}}",
    }
    arguments = STRING | {
        "input": '{"smiles": "{{item.smiles}}"}',
        "reference": "{{sample.output_tools[0].function.arguments}}",
    }
    several = {
        "type": "multi",
        "graders": {"function_name": name, "arguments": arguments},
        "calculate_output": "0.5 * function_name + 0.5 * arguments",
    }
    call = {"name": "get_acceptors", "arguments": '{"smiles": "CCO"}'}
    message = {"content": None, "tool_calls": [{"type": "function", "function": call}]}
    called = sample_of_completion({"choices": [{"message": message}]})
    assert graded(several, called, {"smiles": "CCO"}).score == 1.0
    assert graded(several, called, {"smiles": "CCC"}).score == 0.5
    assert flags(graded(several, "I call nothing.", {"smiles": "C"})) == {"invalid_variable_error"}


def test_rounding_does_not_miss_a_threshold() -> None:
    graders = {key: STRING for key in ("a", "b", "c")}
    formula = "0.1 * a + 0.2 * b + 0.7 * c - 1e-12"
    several = {"type": "multi", "graders": graders, "calculate_output": formula}
    assert graded(several).passed


def test_error_of_a_part_is_one_of_the_whole() -> None:
    """Else `1 - toxic` would reward a judge that fails."""
    several = {
        "type": "multi",
        "graders": {"toxic": SCORE, "right": STRING},
        "calculate_output": "1 - toxic",
    }
    result = graded(several, judges=ScriptedJudges("nonsense"))
    assert flags(result) == {"model_grader_parse_error"}
    assert str(result.errors["details"]).startswith("toxic: ")
    assert result.sub_scores == {"toxic": 0.0, "right": 1.0}
    assert result.tokens_by_model == {"resolved-judge": 12}


@pytest.mark.parametrize(
    ("formula", "flag"),
    [("a +", "formula_parse_error"), ("a + b", "formula_parse_error"), ("a / 0", "other_error")],
)
def test_formula_without_a_value_is_an_error(formula: str, flag: str) -> None:
    several = {"type": "multi", "graders": {"a": STRING}, "calculate_output": formula}
    assert flags(graded(several)) == {flag}


def test_one_grader_of_a_multi_may_stand_alone() -> None:
    """As in OpenAI's API description, which has no keys; its guide has them."""
    several = {"type": "multi", "graders": STRING | {"name": "only"}, "calculate_output": "only"}
    assert graded(several).sub_scores == {"only": 1.0}


def test_usage_of_several_judges_is_added() -> None:
    graders = {"a": LABEL, "b": LABEL | {"model": "other"}, "c": LABEL}
    several = {"type": "multi", "graders": graders, "calculate_output": "min(a, b, c)"}
    result = graded(several, judges=ScriptedJudges({"result": "good"}))
    assert result.tokens_by_model == {"resolved-judge": 24, "resolved-other": 12}
    assert (result.score, len(result.completions)) == (1.0, 3)


@pytest.mark.parametrize("grader", [STRING, SIMILAR, SCORE, LABEL])
def test_variable_without_a_value_is_flagged_by_all(grader: dict[str, Any]) -> None:
    assert flags(graded(grader, item={})) == {"invalid_variable_error"}
