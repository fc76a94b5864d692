"""Bugs that users of other graders and metrics reported, tried on ours."""

import json
import time
from typing import Any

import pytest

from core.errors import InvalidRequest
from core.grading.formula import InvalidFormula, read_formula
from core.grading.text_similarity import similarity
from core.grading.validate import check_grader
from core.spec.grader import PythonOutcome
from tests.core.grading.scripted_judges import ScriptedJudges
from tests.core.grading.test_grade import LABEL, PYTHON, SCORE, SIMILAR, STRING, flags, graded
from tests.core.grading.test_validate import grader


def test_answer_of_a_judge_that_is_none_is_not_the_worst_grade() -> None:
    """openai/evals#1712: an answer that cannot be parsed became the lowest score, unseen."""
    assert flags(graded(LABEL, judges=ScriptedJudges("Good, I think."))) == {
        "model_grader_parse_error"
    }


def test_score_outside_of_its_range_is_cut_to_the_right_end() -> None:
    """modelscope/evalscope#1575: 90 of a judge that counts to 100 became a perfect 1.0.

    OpenAI cuts, too; `range` says how far the judge counts.
    """
    judge = ScriptedJudges({"result": 90})
    assert graded(SCORE | {"range": [0, 100]}, judges=judge).score == 90


@pytest.mark.parametrize("kind", [SIMILAR, SCORE, PYTHON])
def test_threshold_of_zero_is_a_threshold(kind: dict[str, Any]) -> None:
    """promptfoo/promptfoo#5581: a threshold of 0 counted as none."""

    judges = ScriptedJudges({"result": 0}, python=lambda *_: PythonOutcome(score=0.0))
    assert graded(kind | {"pass_threshold": 0}, "xyz", judges=judges).passed
    assert not graded(kind, "xyz", judges=judges).passed


def test_judge_without_a_verdict_does_not_pass() -> None:
    """promptfoo/promptfoo#10611, #9910: without a verdict or a threshold, everything passed."""
    assert flags(graded(SCORE, judges=ScriptedJudges({"steps": []}))) == {
        "model_grader_parse_error"
    }
    assert not graded(SCORE, judges=ScriptedJudges({"result": 0.1})).passed


def test_data_may_have_the_braces_of_another_language() -> None:
    """promptfoo/promptfoo#1405, #4538: web pages with {{angular}} and formulas with ^{{Ω}rel }."""
    text = "for vacancies (Fig. 9a), ^{{Ω}rel }is {{angular}} {% raw %} {{item.answer}}"
    assert graded(STRING, text, {"answer": text}).passed
    check_grader(grader(STRING | {"reference": "^{{Ω}rel }is"}))


def test_variable_that_is_not_resolved_is_told() -> None:
    """promptfoo/promptfoo#7861: the judge got the text {{myVar}}, and graded it as correct."""
    judges = ScriptedJudges({"result": 1})
    asked = [{"role": "user", "content": "Is {{sample.output_text}} {{item.myVar}}?"}]
    result = graded(SCORE | {"input": asked}, judges=judges)
    assert flags(result) == {"invalid_variable_error"}
    assert judges.bodies == []
    with pytest.raises(InvalidRequest):
        check_grader(grader(SCORE | {"input": [{"role": "user", "content": "{{myVar}}"}]}))


def test_graders_of_a_multi_grader_have_names() -> None:
    """openai/openai-java#647: the clients could send one grader only, which the server refused."""
    one = STRING | {
        "name": "compliant",
        "input": "{{sample.output_json.compliant}}",
        "reference": "{{item.compliant}}",
    }
    formula = {"type": "multi", "name": "ASDF", "calculate_output": "0.5 * compliant"}
    for graders in (one, {"compliant": one}):
        result = graded(formula | {"graders": graders}, '{"compliant": true}', {"compliant": True})
        assert result.score == 0.5


@pytest.mark.parametrize("text", ["9**9**9**9**9**9**9", "10**10**10", "2^(2^(2^(2^(2^9))))"])
def test_power_of_powers_ends(text: str) -> None:
    """Project-MONAI/MONAI#8936, verl-project/verl#7607: safe evaluators that hang on it."""
    started = time.monotonic()
    with pytest.raises(InvalidFormula):
        read_formula(text).value({})
    assert time.monotonic() - started < 5


def test_equal_short_texts_are_equal_for_bleu() -> None:
    """nltk/nltk#2217, #2498: 1.5e-154 for equal texts of two words; 0 for This is (a) cat."""
    assert similarity("bleu", "left right", "left right") == 1.0
    assert 0.3 < similarity("bleu", "This is cat", "This is a cat") < 0.7


def test_texts_with_nothing_in_common_have_no_bleu() -> None:
    """mjpost/sacrebleu#141: 0.5 for yes and no. nltk/nltk#1554: 1.0 for words in wrong order."""
    assert similarity("bleu", "yes", "no") == 0.0
    assert similarity("bleu", "let go it", "let it go") < 1.0


def test_meteor_is_at_most_one() -> None:
    """nltk/nltk#2751: 1.056, because words with one stem matched twice."""
    text = "creates or updates a virtual machine scale set"
    assert similarity("meteor", text, "create or update a vm scale set") < 0.9


@pytest.mark.parametrize("metric", ["rouge_1", "rouge_2", "rouge_l", "bleu", "meteor"])
def test_scripts_other_than_latin_have_words(metric: Any) -> None:
    """huggingface/evaluate#256, google/adk-python#3111: ROUGE of equal Thai texts is 0."""
    for text in ("पूर्व प्रधानमन्त्री शिंजो आबेको हत्याले जापान स्तब्ध छ।", "สวัสดี"):
        assert similarity(metric, text, text) == 1.0
    assert 0 < similarity(metric, "पूर्व प्रधानमन्त्री शिंजो", "पूर्व प्रधानमन्त्री आबे") < 1


def test_part_of_a_wrong_text_is_no_match() -> None:
    """rapidfuzz/RapidFuzz#71, seatgeek/fuzzywuzzy#328: WRatio gives 0.9 to both."""
    assert similarity("fuzzy_match", "X94678", "7") < 0.3
    assert similarity("fuzzy_match", "american Futures and Options Exchange", "america") < 0.4


def test_empty_texts_are_equal_and_no_number_is_nan() -> None:
    """life4/textdistance#63: 0 for two empty texts. dkpro/dkpro-similarity#4: NaN for a cosine."""
    for metric in ("fuzzy_match", "cosine", "bleu", "rouge_l"):
        same = SIMILAR | {"evaluation_metric": metric, "reference": ""}
        assert graded(same, "").score == 1.0
        assert graded(same, "x").score == 0.0


def test_numbers_that_share_a_digit_do_not_match() -> None:
    """openai/evals#791: every wrong number passed a fuzzy match."""
    strict = SIMILAR | {"pass_threshold": 0.9}
    for said, right in (("11.2", "14.7"), ("11.8", "13.1"), ("11", "11.3")):
        assert not graded(strict, said, {"answer": right}).passed
        assert not graded(STRING | {"operation": "like"}, said, {"answer": right}).passed


def test_schema_of_a_judge_is_enforced_so_no_fence_is_written() -> None:
    """Mercor-Intelligence/archipelago#97: judges put their JSON into a Markdown fence."""
    judges = ScriptedJudges({"result": "good"})
    graded(LABEL, judges=judges)
    form = judges.bodies[0]["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
    json.dumps(form)
