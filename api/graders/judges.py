"""What graders need, in the API: models through its engines, and Python in the sandbox."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import anyio.to_thread

from api.app_state import AppState
from api.auth.caller import Caller
from api.generation.run import run
from core.grading.models import EMBEDDER
from core.inference.answer import collect
from core.inference.chat import chat_completion
from core.inference.embeddings import EmbeddingBody, embedding_list, plan_embeddings
from core.inference.endpoints import checked_body
from core.inference.plan import plan_chat
from core.inference.schemas import ChatBody
from core.inference.targets import target_of_resolved
from core.sandbox.run import run_grader
from core.spec.batch import BatchModel
from core.spec.engine_calls import EMBED
from core.spec.grader import PythonOutcome


class ApiJudges:
    """The `Judges` of one request, with the models that its graders name."""

    def __init__(self, state: AppState, caller: Caller, models: Mapping[str, BatchModel]) -> None:
        """`models` is what `api.graders.models.require_models` returns."""
        self._state = state
        self._caller = caller
        self._models = models

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        checked = cast(ChatBody, checked_body("/v1/chat/completions", body))
        target = target_of_resolved(self._models[str(checked.model)])
        plan = plan_chat(target, self._caller.project, checked)
        answer = await collect(run(self._state.engines, plan.requests), plan.requests)
        return chat_completion(plan, answer)

    async def embed(self, model: str | None, texts: Sequence[str]) -> list[list[float]]:
        target = target_of_resolved(self._models[model or EMBEDDER])
        plan = plan_embeddings(target, self._caller.project, EmbeddingBody(input=list(texts)))
        answers = [await self._state.engines.ask(EMBED, each) for each in plan.requests]
        return [each["embedding"] for each in embedding_list(plan, answers)["data"]]

    async def run_python(
        self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]
    ) -> PythonOutcome:
        limits = self._state.settings.grader_limits
        return await anyio.to_thread.run_sync(
            partial(run_grader, source, sample, item, limits), limiter=self._state.graders
        )
