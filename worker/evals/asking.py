"""Asks models for an eval run: those of this service through the engines, and external ones."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from core.errors import InvalidRequest, TunesmithError
from core.spec.batch import BatchModel
from core.spec.evals import EvalModel, ExternalModel
from core.spec.ids import ProjectId
from worker.answering.dispatch import Dispatch, Look, Request
from worker.answering.external import ExternalClient
from worker.answering.fleet import Fleet


@dataclass(eq=False, kw_only=True)
class Question(Request):
    """A request of which someone awaits the answer."""

    answer: asyncio.Future[dict[str, Any]]


class _Questions:
    """The questions that wait to be sent."""

    is_open = True

    def __init__(self) -> None:
        self._waiting: deque[Question] = deque()

    def add(self, question: Question) -> None:
        self._waiting.append(question)

    def take(self) -> Question | None:
        while self._waiting:
            question = self._waiting.popleft()
            if not question.answer.done():  # its asker may be gone
                return question
        return None

    def answered(self, request: Question, status: int, body: Mapping[str, Any]) -> None:
        if not request.answer.done():
            request.answer.set_result(dict(body))

    def refused(self, request: Question, error: TunesmithError) -> None:
        if not request.answer.done():
            request.answer.set_exception(error)

    async def store(self) -> None:
        """Answers are stored by those who await them."""


class Asking:
    """Sends questions until it is cancelled; any number of coroutines may ask at once."""

    def __init__(
        self,
        project: ProjectId,
        models: Mapping[str, EvalModel],
        engine_key: SecretStr | None,
        look: Look,
        external: ExternalClient,
    ) -> None:
        """`models` are those that bodies may name."""
        self._models = models
        self._external = external
        self._questions = _Questions()
        self._dispatch = Dispatch(project, self._questions, Fleet(engine_key), look)

    async def run(self) -> None:
        """Send questions. Returns if `look` says that the work is over."""
        await self._dispatch.run()

    async def ask(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object that answers a body with the name of one of the models.

        Waits while no engine is available. Raises the error of a request that is not sent again.
        """
        name = str(body.get("model"))
        model = self._models.get(name)
        if model is None:
            raise InvalidRequest(f"This run has no model {name!r}.", param="model")
        return await self.ask_model(url, model, body)

    async def ask_model(
        self, url: str, model: EvalModel, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the object that answers a body, whatever model it names."""
        match model:
            case ExternalModel():
                return await self._external.ask(url, model, body)
            case BatchModel():
                answer: asyncio.Future[dict[str, Any]]
                answer = asyncio.get_running_loop().create_future()
                self._questions.add(Question(url=url, body=body, model=model, answer=answer))
                self._dispatch.wake()
                return await answer
