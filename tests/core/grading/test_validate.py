"""Errors of graders beyond their schema, each with the path of its field."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from core.errors import InvalidRequest
from core.grading.models import EMBEDDER, models_named_by
from core.grading.texts import templates_of
from core.grading.validate import MOST_GRADERS, check_grader
from core.spec.grader import Grader
from tests.core.grading.test_grade import LABEL, PYTHON, SCORE, SIMILAR, STRING

GRADERS: TypeAdapter[Grader] = TypeAdapter(Grader)
MULTI = {
    "type": "multi",
    "name": "all",
    "graders": {"a": STRING, "b": SIMILAR, "c": SCORE, "d": LABEL, "e": PYTHON},
    "calculate_output": "max(a, b, c, d, e)",
}


def grader(value: dict[str, Any]) -> Grader:
    return GRADERS.validate_python(value)


def parts(*content: object) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": list(content)}]}


@pytest.mark.parametrize("good", [STRING, SIMILAR, SCORE, LABEL, PYTHON, MULTI])
def test_good_grader_passes(good: dict[str, Any]) -> None:
    check_grader(grader(good))


@pytest.mark.parametrize(
    ("bad", "param", "message"),
    [
        (STRING | {"input": "{{ foo }}"}, "grader.input", "not a variable"),
        (STRING | {"reference": "{{ sample.output }}"}, "grader.reference", "'output_text'"),
        (STRING | {"input": "{{ sample.output_audio.data }}"}, "grader.input", "output_audio"),
        (SIMILAR | {"pass_threshold": 80}, "grader.pass_threshold", "0 to 1"),
        (SCORE | {"pass_threshold": 6}, "grader.pass_threshold", "no score reaches"),
        (SCORE | {"range": [1, 1]}, "grader.range", "smaller first"),
        (SCORE | {"range": [5, 1]}, "grader.range", "smaller first"),
        (SCORE | parts("ok", "{{item.x"), "grader.input[0].content[1]", "no end"),
        (
            SCORE | parts({"type": "input_text", "text": "{{ a.b }}"}),
            "grader.input[0].content[0].text",
            "not a variable",
        ),
        (
            SCORE | parts({"type": "input_image", "image_url": "x"}),
            "grader.input[0].content",
            "input_image",
        ),
        (
            SCORE | {"sampling_params": {"temperature": 3}},
            "grader.sampling_params.temperature",
            "less than or equal to 2",
        ),
        (
            SCORE | {"sampling_params": {"max_completions_tokens": 10**9}},
            "grader.sampling_params.max_completions_tokens",
            "1000000",
        ),
        (
            LABEL | {"sampling_params": {"reasoning_effort": "hgih"}},
            "grader.sampling_params.reasoning_effort",
            "'high'",
        ),
        (SCORE | {"model": "x" * 600}, "grader.model", "512"),
        (LABEL | {"passing_labels": ["god"]}, "grader.passing_labels[0]", "'good'"),
        (LABEL | {"labels": ["a", "a"]}, "grader.labels", "repeated"),
        (PYTHON | {"source": "x = 1"}, "grader.source", "grade(sample, item)"),
        (MULTI | {"calculate_output": "a + f"}, "grader.calculate_output", "'f'"),
        (MULTI | {"calculate_output": "a +"}, "grader.calculate_output", "ends"),
        (
            MULTI | {"graders": {"exact-match": STRING}, "calculate_output": "exact_match"},
            "grader.calculate_output",
            "letters, digits",
        ),
        (
            MULTI | {"graders": {"a": STRING | {"input": "{{ x }}"}}, "calculate_output": "a"},
            "grader.graders.a.input",
            "not a variable",
        ),
        (
            MULTI
            | {
                "graders": {f"a{n}": STRING for n in range(MOST_GRADERS + 1)},
                "calculate_output": "a1",
            },
            "grader.graders",
            "more than",
        ),
    ],
)
def test_error_has_the_path_of_its_field(bad: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_grader(grader(bad))
    assert caught.value.param == param
    assert message in caught.value.message


def test_without_an_answer_there_is_no_sample() -> None:
    check_grader(grader(STRING | {"input": "{{item.x}}"}), has_sample=False)
    with pytest.raises(InvalidRequest, match="no model answers") as caught:
        check_grader(grader(STRING), "testing_criteria[2]", has_sample=False)
    assert caught.value.param == "testing_criteria[2].input"


def test_formula_error_has_openais_code() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_grader(grader(MULTI | {"calculate_output": "x"}))
    assert caught.value.code == "formula_parse_error"


def test_models_are_named_once() -> None:
    assert models_named_by(grader(MULTI)) == {"judge"}
    cosine = SIMILAR | {"evaluation_metric": "cosine"}
    both = MULTI | {"graders": {"a": cosine, "b": SCORE}, "calculate_output": "a * b"}
    assert models_named_by(grader(both)) == {EMBEDDER, "judge"}
    assert models_named_by(grader(STRING)) == set()


def test_all_templates_are_found() -> None:
    paths = [path for path, _ in templates_of(grader(MULTI), "g")]
    assert paths == [
        "g.graders.a.input",
        "g.graders.a.reference",
        "g.graders.b.input",
        "g.graders.b.reference",
        "g.graders.c.input[0].content",
        "g.graders.c.input[1].content",
        "g.graders.d.input[0].content.text",
    ]
