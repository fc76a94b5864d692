"""The similarity of two texts, by one of OpenAI's metrics.

Two texts of the same words have the similarity 1, also where a formula says otherwise: a text of
three words has no sequence of five, and METEOR gives 0.5 to a word that equals its reference. A
text without words has the similarity 0 with all others.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rapidfuzz import fuzz

from core.errors import TunesmithError, Unavailable
from core.grading.judges import Judges
from core.grading.meteor import meteor
from core.grading.ngrams import bleu, gleu, rouge_l, rouge_n
from core.grading.result import Grade, GraderFailed, reaches
from core.grading.sample import Sample
from core.grading.template import render
from core.grading.words import words, words_and_signs
from core.spec.grader import SimilarityMetric, TextSimilarityGrader

DEFAULT_THRESHOLD = 0.5
LONGEST_FUZZY = 65_536
"""Characters of a text; the time of a fuzzy match grows with the product of both lengths."""
SHORT_CHARACTERS = 2_000
"""Texts up to this length are compared at once: a thread would cost more."""

_COMPARING = ThreadPoolExecutor(1, thread_name_prefix="similarity")
"""One for the process: several long comparisons at once would leave no time for its event loop."""


async def grade_similarity(
    grader: TextSimilarityGrader, item: Mapping[str, Any], sample: Sample, judges: Judges
) -> Grade:
    """Compare the rendered texts. Raises GraderFailed for a variable without a value."""
    text, reference = render(grader.input, item, sample), render(grader.reference, item, sample)
    metric = grader.evaluation_metric
    if metric == "cosine":
        score = await _cosine(text, reference, judges)
    elif len(text) + len(reference) > SHORT_CHARACTERS:
        loop = asyncio.get_running_loop()
        score = await loop.run_in_executor(_COMPARING, similarity, metric, text, reference)
    else:
        score = similarity(metric, text, reference)
    threshold = DEFAULT_THRESHOLD if grader.pass_threshold is None else grader.pass_threshold
    return Grade(score, reaches(score, threshold))


def similarity(metric: SimilarityMetric, text: str, reference: str) -> float:
    """Return the similarity by a metric that needs no model, from 0 to 1.

    Raises GraderFailed for a text that is too long.
    """
    if metric == "fuzzy_match":
        return _fuzzy(text, reference)
    if metric == "meteor":
        text, reference = text.lower(), reference.lower()
    split = words if metric.startswith("rouge") else words_and_signs
    ours, theirs = split(text), split(reference)
    if not ours or not theirs:
        return float(text == reference)
    return 1.0 if ours == theirs else _by_words(metric, ours, theirs)


def _by_words(metric: SimilarityMetric, ours: Sequence[str], theirs: Sequence[str]) -> float:
    match metric:
        case "bleu":
            return bleu(ours, theirs)
        case "gleu":
            return gleu(ours, theirs)
        case "meteor":
            return meteor(ours, theirs)
        case "rouge_l":
            return rouge_l(ours, theirs)
        case _:
            return rouge_n(ours, theirs, int(metric.removeprefix("rouge_")))


def _fuzzy(text: str, reference: str) -> float:
    """Return rapidfuzz's `ratio`: 1 minus the share of characters to insert and to delete."""
    if max(len(text), len(reference)) > LONGEST_FUZZY:
        raise GraderFailed(
            "other_error",
            f"A text has more than {LONGEST_FUZZY:,} characters, the most that fuzzy_match "
            "compares. Use a metric of words, such as rouge_l.",
        )
    return fuzz.ratio(text, reference) / 100


async def _cosine(text: str, reference: str, judges: Judges) -> float:
    """Return the cosine of the embeddings, 0 if it is negative."""
    if not text or not reference:
        return float(text == reference)
    try:
        ours, theirs = await judges.embed(None, [text, reference])
    except Unavailable:
        raise
    except TunesmithError as error:
        raise GraderFailed("other_error", f"The texts cannot be embedded: {error}") from None
    lengths = math.hypot(*ours) * math.hypot(*theirs)
    product = math.fsum(a * b for a, b in zip(ours, theirs, strict=True))
    return min(1.0, max(0.0, product / lengths)) if lengths else 0.0
