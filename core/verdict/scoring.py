"""Scores one answer: by what its row has, and by the graders of the job."""

from collections.abc import Sequence
from typing import Any

from core.errors import TunesmithError
from core.grading.grade import Judges, grade
from core.grading.sample import Sample, sample_of_completion
from core.spec.grader import Grader, TextSimilarityGrader
from core.spec.held_out import Question
from core.spec.verdict import Answer
from core.verdict.labels import is_right
from core.verdict.metrics import Scored
from core.verdict.questions import item_of
from core.verdict.tool_calls import is_same_calls, is_same_names

ROUGE_L = TextSimilarityGrader(
    name="rouge_l",
    input="{{sample.output_text}}",
    reference="{{item.reference}}",
    evaluation_metric="rouge_l",
)
"""The F-measure of the longest common subsequence of words (Lin 2004)."""

LARGEST_SCORE = 1e12
"""Of a grader. Sums over rows stay finite."""

PARSE_ERROR = "sample_parse_error"
"""The grader's flag for an answer that is not in the form that it reads: a score of 0."""
DETAILS = "details"
"""The name of the message of a flag."""


async def scored(question: Question, answer: Answer, judges: Judges) -> Scored:
    """Return the answer with the scores that need no grader of the job.

    `accuracy` of labels; `tool_call_match` and `tool_name_match` where the row has tools;
    `exact_match` (without white space around) and `rouge_l` where the row has a text.
    """
    if answer.error is not None:
        return Scored(answer)
    values: dict[str, float | None] = {}
    if question.labels is not None:
        values["accuracy"] = float(is_right(question.labels, answer.labels or ()))
    if question.tools or question.tool_calls:
        values["tool_call_match"] = float(is_same_calls(question.tool_calls, answer.tool_calls))
        values["tool_name_match"] = float(is_same_names(question.tool_calls, answer.tool_calls))
    found = Scored(answer, values)
    if not question.reference or question.tool_calls:
        return found
    values["exact_match"] = float(answer.text.strip() == question.reference.strip())
    return await graded(question, found, (ROUGE_L,), judges)


async def graded(
    question: Question, found: Scored, graders: Sequence[Grader], judges: Judges
) -> Scored:
    """Return the answer with the scores of graders as well.

    The judges wait by themselves: an error that they raise is a problem of this grader.
    """
    if found.answer.error is not None:
        return found
    values, problems = dict(found.values), dict(found.problems)
    item, sample = item_of(question), sample_of(found.answer)
    for grader in graders:
        try:
            result = await grade(grader, item, sample, judges)
        except TunesmithError as error:
            values[grader.name] = None
            problems[grader.name] = error.message
            continue
        if result.errors.keys() - {PARSE_ERROR, DETAILS}:
            values[grader.name] = None
            problems[grader.name] = _told(result.errors)
        elif not abs(result.score) <= LARGEST_SCORE:
            values[grader.name] = None
            problems[grader.name] = f"the score is no number up to {LARGEST_SCORE:g}"
        else:
            values[grader.name] = result.score
    return Scored(found.answer, values, problems)


def sample_of(answer: Answer) -> Sample:
    """Return the `sample` that graders see. The text of a classifier is its labels."""
    text = answer.text if answer.labels is None else ", ".join(answer.labels)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if answer.tool_calls:
        message["tool_calls"] = list(answer.tool_calls)
    reason = "tool_calls" if answer.tool_calls else "length" if answer.cut else "stop"
    choice = {"index": 0, "finish_reason": reason, "message": message}
    return sample_of_completion({"choices": [choice]})


def _told(errors: dict[str, bool | str | None]) -> str:
    """Return the flags that are set, and what they are about."""
    flags = ", ".join(name for name, value in errors.items() if value is True)
    return f"{flags}: {errors.get(DETAILS)}"
