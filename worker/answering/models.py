"""The models that the requests of a task may name, as they were resolved when it was created."""

from collections.abc import Mapping
from typing import Any

from core.errors import InvalidRequest
from core.inference.endpoints import answer_in_background, checked_body
from core.inference.error_bodies import error_of
from core.inference.targets import target_of_resolved
from core.spec.batch import BatchModel, RefusedModel
from core.spec.evals import EvalModel, ExternalModel
from core.spec.ids import ProjectId
from worker.answering.background import Background
from worker.answering.external import ExternalClient

Models = (
    Mapping[str, BatchModel] | Mapping[str, BatchModel | RefusedModel] | Mapping[str, EvalModel]
)


class NamedModels:
    """Answers bodies of OpenAI's requests by the models that they name."""

    def __init__(
        self,
        models: Models,
        project: ProjectId,
        background: Background,
        external: ExternalClient | None = None,
    ) -> None:
        """`external` is for tasks that may ask external models."""
        self._models = models
        self._project = project
        self._background = background
        self._external = external

    async def ask(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object that answers a body; `url` is that of our route.

        Waits while no engine is available. Raises the error of a request that is not sent again.
        """
        name = str(body.get("model"))
        match self._models.get(name):
            case BatchModel() as model:
                target, checked = target_of_resolved(model), checked_body(url, body)
                return await self._background.ask(
                    target,
                    lambda engine: answer_in_background(
                        url, engine, target, self._project, checked
                    ),
                )
            case ExternalModel() as model if self._external is not None:
                return await self._external.ask(url, model, body)
            case RefusedModel() as refused:
                raise error_of(refused.status, refused.body)
        raise InvalidRequest(
            f"The model {name[:128]!r} was not resolved when the task was created.",
            param="model",
            code="model_not_found",
        )
