"""What graders need, in a worker: models through the engines, and Python in the sandbox."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import Unavailable
from core.evals.results import usage_of
from core.grading.judges import Judges
from core.grading.models import EMBEDDER
from core.records.model_usage import ModelUsage
from core.sandbox.limits import LIMITS, Limits
from core.sandbox.run import AT_ONCE, run_grader
from core.spec.grader import PythonOutcome
from worker.answering.models import NamedModels

logger = logging.getLogger(__name__)

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
PAUSES_SECONDS = (1, 2, 5, 10, 30, 60, 120)
"""Before a Python grader is tried again. A call waits two minutes for room by itself."""


class WorkerJudges:
    """The `Judges` of a task. They wait for engines and room by themselves: errors are final."""

    def __init__(self, models: NamedModels, limits: Limits = LIMITS) -> None:
        """`limits` are those of the settings."""
        self._models = models
        self._limits = limits
        # Graders that wait here hold no thread, which other parts of the task need.
        self._sandboxes = asyncio.Semaphore(AT_ONCE)

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._models.ask(CHAT, body)

    async def embed(self, model: str | None, texts: Sequence[str]) -> list[list[float]]:
        body = {"model": model or EMBEDDER, "input": list(texts), "encoding_format": "float"}
        answer = await self._models.ask(EMBEDDINGS, body)
        return [each["embedding"] for each in answer["data"]]

    async def run_python(
        self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]
    ) -> PythonOutcome:
        """Run it; wait while the sandbox has no room, and try again if it fails."""
        for seconds in PAUSES_SECONDS:
            try:
                return await self._run(source, sample, item)
            except Unavailable as error:
                logger.info("A Python grader has to wait: %s", error)
                await asyncio.sleep(seconds)
        return await self._run(source, sample, item)

    async def _run(
        self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]
    ) -> PythonOutcome:
        async with self._sandboxes:
            return await asyncio.to_thread(run_grader, source, sample, item, self._limits)


class CountingJudges:
    """The judges of one row, whose models' tokens are added to a list."""

    def __init__(self, judges: Judges, usage: list[ModelUsage]) -> None:
        self._judges = judges
        self._usage = usage

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        completion = await self._judges.complete(body)
        self._usage.append(usage_of(completion))
        return completion

    async def embed(self, model: str | None, texts: Sequence[str]) -> list[list[float]]:
        return await self._judges.embed(model, texts)

    async def run_python(
        self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]
    ) -> PythonOutcome:
        return await self._judges.run_python(source, sample, item)
