"""What graders need, in a worker: models through the engines, and Python in the sandbox."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import InvalidRequest
from core.grading.models import EMBEDDER
from core.inference.endpoints import Engine, answer_in_background, checked_body
from core.inference.error_bodies import error_of
from core.inference.targets import Target, target_of_resolved
from core.sandbox.limits import LIMITS, Limits
from core.sandbox.run import AT_ONCE, run_grader
from core.spec.batch import BatchModel, RefusedModel
from core.spec.grader import PythonOutcome
from core.spec.ids import ProjectId

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
Models = Mapping[str, BatchModel] | Mapping[str, BatchModel | RefusedModel]
"""By the names in graders, as `api.graders.models.require_models` finds them."""


class WorkerJudges:
    """The `Judges` of a task. Its requests are background work, behind those of live callers."""

    def __init__(
        self, models: Models, project: ProjectId, engine: Engine, limits: Limits = LIMITS
    ) -> None:
        """`engine` is usually `AnyEngine(database, key)`, `limits` those of the settings."""
        self._models = models
        self._project = project
        self._engine = engine
        self._limits = limits
        # Graders that wait here hold no thread, which other parts of the task need.
        self._sandboxes = asyncio.Semaphore(AT_ONCE)

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._answer(CHAT, str(body.get("model")), body)

    async def embed(self, model: str | None, texts: Sequence[str]) -> list[list[float]]:
        body = {"input": list(texts), "encoding_format": "float"}
        answer = await self._answer(EMBEDDINGS, model or EMBEDDER, body)
        return [each["embedding"] for each in answer["data"]]

    async def run_python(
        self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]
    ) -> PythonOutcome:
        async with self._sandboxes:
            return await asyncio.to_thread(run_grader, source, sample, item, self._limits)

    async def _answer(self, url: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        target = self._target(name)
        checked = checked_body(url, body)
        return await answer_in_background(url, self._engine, target, self._project, checked)

    def _target(self, name: str) -> Target:
        model = self._models.get(name)
        if isinstance(model, RefusedModel):
            raise error_of(model.status, model.body)
        if model is None:
            raise InvalidRequest(
                f"The model {name[:128]!r} was not resolved when the task was created.",
                param="model",
                code="model_not_found",
            )
        return target_of_resolved(model)
