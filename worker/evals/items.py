"""Answers and grades one item of an eval run."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from core.errors import TunesmithError, Unavailable
from core.evals.messages import request_body
from core.evals.results import Criterion, Sampled, errored_item, graded_item, usage_of
from core.evals.samples import completion_of_response, sample_of_row
from core.grading.grade import grade
from core.grading.models import EMBEDDER
from core.grading.sample import sample_of_completion
from core.inference.endpoints import checked_body
from core.records.eval_progress import ItemResult, ModelUsage
from core.spec.evals import EvalRunRequest, result_names
from core.spec.grader import PythonOutcome
from worker.evals.asking import Asking

logger = logging.getLogger(__name__)

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
NO_ANSWER = "The item has no sample, and the run samples no answers."
FAILED = "The service failed."

PAUSES_SECONDS = (1, 2, 5, 10, 30, 60, 120)
"""Before a Python grader is tried again. A call waits two minutes for room by itself."""

RunPython = Callable[[str, Mapping[str, Any], Mapping[str, Any]], Awaitable[PythonOutcome]]
"""Of `core.grading.judges.Judges`."""


class Items:
    """Makes results of the items of one run."""

    def __init__(self, run: EvalRunRequest, asking: Asking, run_python: RunPython) -> None:
        names = result_names(run.criteria)
        self._run = run
        self._asking = asking
        self._run_python = run_python
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
            judges = _ItemJudges(self._asking, self._run_python, usage)
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
        answer = await self._asking.ask(sampling.url, body)
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


class _ItemJudges:
    """The judges of one item, which count the tokens of model graders."""

    def __init__(self, asking: Asking, python: RunPython, usage: list[ModelUsage]) -> None:
        self._asking = asking
        self._python = python
        self._usage = usage

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        completion = await self._asking.ask(CHAT, body)
        self._usage.append(usage_of(completion))
        return completion

    async def embed(self, model: str | None, texts: Sequence[str]) -> list[list[float]]:
        body = {"model": model or EMBEDDER, "input": list(texts), "encoding_format": "float"}
        answer = await self._asking.ask(EMBEDDINGS, body)
        return [each["embedding"] for each in answer["data"]]

    async def run_python(
        self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]
    ) -> PythonOutcome:
        """Run it; wait while the sandbox has no room, and try again if it fails."""
        for seconds in PAUSES_SECONDS:
            try:
                return await self._python(source, sample, item)
            except Unavailable as error:
                logger.info("A Python grader has to wait: %s", error)
                await asyncio.sleep(seconds)
        return await self._python(source, sample, item)
