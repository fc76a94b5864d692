"""Similarities of texts, against the packages that define them, and where these mislead.

`make_similarity_values.py` has computed the expected values.
"""

import json
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.grading.meteor import meteor
from core.grading.result import GraderFailed
from core.grading.text_similarity import LONGEST_FUZZY, similarity
from core.grading.words import MOST_WORDS, words, words_and_signs
from core.spec.grader import SimilarityMetric

PAIRS = json.loads(Path(__file__).with_name("similarity_values.json").read_text())["pairs"]
METRICS = [metric for metric in get_args(SimilarityMetric) if metric != "cosine"]
OF_WORDS = [metric for metric in METRICS if metric != "fuzzy_match"]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["text"][:20])
def test_value_is_that_of_the_package(metric: Any, pair: dict[str, Any]) -> None:
    text, reference = pair["text"], pair["reference"]
    if metric == "meteor":
        text, reference = text.lower(), reference.lower()
    split = words if metric.startswith("rouge") else words_and_signs
    same = split(text) == split(reference) and metric != "fuzzy_match"
    expected = 1.0 if same else pair["values"][metric]
    assert similarity(metric, text, reference) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "text",
    [
        *("Paris", "yes", "3.14", "...", "", " ", "left right", "東京は日本の首都です。", "สวัสดี"),
        *("שלום", "पूर्व प्रधानमन्त्री शिंजो", "Привет, мир", "👍🏽", "ééé", "مرحبا بالعالم"),
    ],
)
def test_equal_texts_have_the_similarity_one(metric: Any, text: str) -> None:
    """Also short ones, and those of any script, for which other packages give 0, 0.5 or 1e-154."""
    assert similarity(metric, text, text) == 1.0


@pytest.mark.parametrize("metric", OF_WORDS)
@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("yes", "no"),
        ("大阪", "東京"),
        ("", "Paris"),
        ("Paris", ""),
        ("...", "!!!"),
        ("Москва", "Рим"),
    ],
)
def test_texts_without_a_common_word_have_none(metric: Any, text: str, reference: str) -> None:
    assert similarity(metric, text, reference) == 0.0


@pytest.mark.parametrize("metric", OF_WORDS)
def test_accents_and_vowel_signs_are_parts_of_words(metric: Any) -> None:
    assert similarity(metric, "Cristóbal está", "Cristobal esta") == 0.0
    assert similarity(metric, "पूर्व", "पर") == 0.0


def test_scripts_without_spaces_are_compared_by_character() -> None:
    assert words("東京タワー") == ["東", "京", "タ", "ワ", "ー"]
    assert similarity("rouge_1", "東京", "東北") == 0.5
    assert words("กำลัง") == ["ก", "ำ", "ลั", "ง"]
    assert words("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]


def test_words_are_those_of_rouge_for_english() -> None:
    assert words("It's 3.14 — snake_case, x86-64!") == [
        *("it", "s", "3", "14", "snake", "case", "x86", "64")
    ]
    assert words_and_signs("It's $3.14, 1,000.") == ["It", "'", "s", "$", "3.14", ",", "1,000", "."]


def test_fuzzy_match_is_no_partial_match() -> None:
    """With rapidfuzz's WRatio, a part of a wrong answer would score 0.9, and -1 would equal 1."""
    assert similarity("fuzzy_match", "the answer is not 42", "42") < 0.2
    assert similarity("fuzzy_match", "-1", "1") < 0.7
    assert similarity("fuzzy_match", "C++", "C") == 0.5
    assert similarity("fuzzy_match", "ab", "ba") == similarity("fuzzy_match", "ba", "ab")


def test_bleu_of_words_in_wrong_order_is_less_than_one() -> None:
    assert similarity("bleu", "let go it", "let it go") < 0.6


def test_meteor_matches_stems_once() -> None:
    """NLTK gave this pair 1.056: it counted words twice that have the same stem."""
    text, reference = PAIRS[8]["text"], PAIRS[8]["reference"]
    assert similarity("meteor", text, reference) == pytest.approx(0.8294, abs=1e-4)
    assert meteor(["create", "creates"], ["create"]) < 1


@pytest.mark.parametrize("metric", METRICS)
def test_longest_texts_are_compared_in_time_and_longer_ones_refused(metric: Any) -> None:
    started = time.monotonic()
    if metric == "fuzzy_match":
        longest = "abcdefgh" * (LONGEST_FUZZY // 8)
        other, more = longest[::-1], longest + "x"
    else:
        # Runs of nine words are common; the tenth has the same stem, which takes longest.
        numbers = range(MOST_WORDS)
        longest = " ".join(f"word{number}ing" for number in numbers)
        other = " ".join(f"word{number}ing{'s' * (number % 10 == 0)}" for number in numbers)
        more = longest + " x"
    assert 0 < similarity(metric, longest, other) < 1
    with pytest.raises(GraderFailed, match="more than") as caught:
        similarity(metric, more, "x")
    assert caught.value.flag == "other_error"
    with pytest.raises(GraderFailed):
        similarity(metric, "x y" * 500_000, "x")
    assert time.monotonic() - started < 60


sentences = st.lists(st.sampled_from(["a", "b", "cat", "cats", "3.1", "über", "東"]), max_size=9)


@given(st.sampled_from(METRICS), sentences, sentences)
def test_similarity_is_from_zero_to_one(metric: Any, ours: list[str], theirs: list[str]) -> None:
    found = similarity(metric, " ".join(ours), " ".join(theirs))
    assert 0.0 <= found <= 1.0
    if metric not in ("bleu", "meteor"):
        assert found == pytest.approx(similarity(metric, " ".join(theirs), " ".join(ours)))


@given(st.sampled_from(METRICS), st.text(max_size=40), st.text(max_size=40))
def test_any_text_has_a_similarity(metric: Any, text: str, reference: str) -> None:
    assert 0.0 <= similarity(metric, text, reference) <= 1.0
    assert similarity(metric, text, text) == 1.0
