"""What graders need, in the API: models through its engines, and Python in the sandbox."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import anyio.to_thread

from api.app_state import AppState
from api.auth.caller import Caller
from api.generation.run import run
from api.graders.embedder import find_embedder
from api.models.first_use import answering_target
from core.grading.sandboxed import run_in_sandbox
from core.inference.answer import collect
from core.inference.chat import chat_completion
from core.inference.embeddings import EmbeddingBody, embedding_list, plan_embeddings
from core.inference.endpoints import checked_body
from core.inference.plan import plan_chat
from core.inference.schemas import ChatBody
from core.spec.engine_calls import EMBED
from core.spec.grader import PythonOutcome
from core.spec.ids import ModelId


class ApiJudges:
    """The `Judges` of one request, with the models of its caller."""

    def __init__(self, state: AppState, caller: Caller) -> None:
        self._state = state
        self._caller = caller

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        checked = cast(ChatBody, checked_body("/v1/chat/completions", body))
        target = await answering_target(self._state, self._caller, checked.model)
        plan = plan_chat(target, self._caller.project, checked)
        answer = await collect(run(self._state.engines, plan.requests), plan.requests)
        return chat_completion(plan, answer)

    async def embed(self, model: str | None, texts: Sequence[str]) -> list[list[float]]:
        if model is None:
            target = await find_embedder(self._state, self._caller, "evaluation_metric")
        else:
            target = await answering_target(self._state, self._caller, ModelId(model))
        plan = plan_embeddings(target, self._caller.project, EmbeddingBody(input=list(texts)))
        answers = [await self._state.engines.ask(EMBED, each) for each in plan.requests]
        return [each["embedding"] for each in embedding_list(plan, answers)["data"]]

    async def run_python(
        self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]
    ) -> PythonOutcome:
        return await anyio.to_thread.run_sync(
            partial(run_in_sandbox, source, sample, item), limiter=self._state.sandboxes
        )
