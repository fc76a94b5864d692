"""Grades the answers to one prompt, and chooses those that are kept."""

import logging
from collections.abc import Mapping
from typing import Any

from core.distillation.candidates import Answered, Candidate, Score, reason
from core.distillation.selection import dropped, graded, with_best
from core.distillation.training_rows import fault_of, training_row
from core.errors import TunesmithError
from core.grading.grade import grade
from core.grading.judges import Judges
from core.grading.result import Grade
from core.grading.sample import Sample, sample_of_completion
from core.records.distillation_progress import RowResult
from core.records.model_usage import ModelUsage
from core.spec.distillation import FilterSpec
from core.spec.evals import result_names
from worker.distillations.asking import FAILED, row_result
from worker.judges import CountingJudges

logger = logging.getLogger(__name__)


class Filter:
    """Makes graded rows of answered ones. An error of a grader is a reason to drop an answer."""

    def __init__(self, filter_: FilterSpec, judges: Judges) -> None:
        self._filter = filter_
        self._named = list(zip(filter_.graders, result_names(filter_.graders), strict=True))
        self._judges = judges

    async def outcome(self, number: int, body: Mapping[str, Any]) -> RowResult:
        usage: list[ModelUsage] = []
        judges = CountingJudges(self._judges, usage)
        prompt = Answered.model_validate(body)
        candidates = [
            await self._graded(prompt, each, judges) if each.status == "answered" else each
            for each in prompt.candidates
        ]
        prompt = prompt.model_copy(update={"candidates": tuple(candidates)})
        return row_result(number, with_best(prompt, self._filter), usage)

    async def _graded(self, prompt: Answered, candidate: Candidate, judges: Judges) -> Candidate:
        message = candidate.message or {}
        fault = fault_of(training_row(prompt.messages, message, prompt.tools))
        if fault is not None:
            return dropped(
                candidate, reason("invalid_row", f"The row cannot be trained on: {fault}")
            )
        sample = _sample_of(candidate)
        scores = [
            await self._score(name, grader, prompt.item, sample, judges)
            for grader, name in self._named
        ]
        return graded(candidate, scores, self._filter)

    async def _score(
        self, name: str, grader: Any, item: Mapping[str, Any], sample: Sample, judges: Judges
    ) -> Score:
        try:
            found = await grade(grader, item, sample, judges)
        except TunesmithError as error:
            return Score(name=name, score=0.0, passed=False, error=error.message)
        except Exception:
            logger.exception("The grader %r failed.", name)
            return Score(name=name, score=0.0, passed=False, error=FAILED)
        return Score(name=name, score=found.score, passed=found.passed, error=_error(found))


def _sample_of(candidate: Candidate) -> Sample:
    choice = {"index": 0, "finish_reason": candidate.finish_reason, "message": candidate.message}
    return sample_of_completion({"choices": [choice]})


def _error(grade: Grade) -> str | None:
    if not grade.errors:
        return None
    return str(grade.errors.get("details") or "without a message")
