"""Answers and grades one item of an eval run."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import TunesmithError
from core.evals.messages import request_body
from core.evals.results import Criterion, Sampled, errored_item, graded_item, usage_of
from core.evals.samples import completion_of_response, sample_of_row
from core.grading.grade import grade
from core.grading.judges import Judges
from core.grading.sample import sample_of_completion
from core.inference.endpoints import checked_body
from core.records.eval_progress import ItemResult
from core.records.model_usage import ModelUsage
from core.spec.evals import EvalRunRequest, result_names
from worker.answering.models import NamedModels
from worker.judges import CHAT, CountingJudges

logger = logging.getLogger(__name__)

NO_ANSWER = "The item has no sample, and the run samples no answers."
FAILED = "The service failed."


class Items:
    """Makes results of the items of one run."""

    def __init__(self, run: EvalRunRequest, models: NamedModels, judges: Judges) -> None:
        names = result_names(run.criteria)
        self._run = run
        self._models = models
        self._judges = judges
        self._criteria = [Criterion(*pair) for pair in zip(run.criteria, names, strict=True)]

    async def result(self, number: int, row: Mapping[str, Any]) -> ItemResult:
        """Return the result of a row. Whatever fails is an error in the result."""
        item = row["item"]
        usage: list[ModelUsage] = []
        body: Mapping[str, Any] = {}
        try:
            if self._run.sampling is not None:
                body = request_body(self._run.sampling, item)
            sampled = await self._sampled(row, body, usage)
            judges = CountingJudges(self._judges, usage)
            grades = [
                await grade(each.grader, item, sampled.sample, judges) for each in self._criteria
            ]
        except TunesmithError as error:
            return self._errored(number, item, body, error, usage)
        except Exception:
            logger.exception("Item %d of %s failed.", number, self._run.run_id)
            return self._errored(number, item, body, TunesmithError(FAILED), usage)
        return graded_item(number, item, sampled, self._criteria, grades, usage)

    async def _sampled(
        self, row: Mapping[str, Any], body: Mapping[str, Any], usage: list[ModelUsage]
    ) -> Sampled:
        sampling = self._run.sampling
        if sampling is None:
            sample = sample_of_row(row)
            if sample is None:
                raise TunesmithError(NO_ANSWER, code="no_sample")
            return Sampled(sample)
        checked_body(sampling.url, {**body, "model": sampling.model})
        answer = await self._models.ask(sampling.url, body)
        is_chat = sampling.url == CHAT
        completion = answer if is_chat else completion_of_response(answer)
        usage.append(usage_of(completion))
        messages = body["messages"] if is_chat else body["input"]
        return Sampled(sample_of_completion(completion), messages, body, completion)

    def _errored(
        self,
        number: int,
        item: Mapping[str, Any],
        body: Mapping[str, Any],
        error: TunesmithError,
        usage: Sequence[ModelUsage],
    ) -> ItemResult:
        messages = body.get("messages") or body.get("input") or ()
        return errored_item(number, item, messages, body, error, self._criteria, usage)
