"""A response of POST /v1/responses as planned, which a background task runs."""

from typing import Any

from core.spec.base import Spec
from core.spec.generation import ChatPrompt, GenerationRequest


class ResponsePlan(Spec):
    """The request to the engine, and the fields of the response that its answer does not change."""

    frame: dict[str, Any]
    """OpenAI's object without status, output and usage."""
    request: GenerationRequest

    @property
    def id(self) -> str:
        id_: str = self.frame["id"]
        return id_

    @property
    def requests(self) -> tuple[GenerationRequest]:
        """As in `core.inference.plan.Plan`."""
        return (self.request,)

    @property
    def prompt(self) -> ChatPrompt:
        prompt = self.request.prompt
        assert isinstance(prompt, ChatPrompt)
        return prompt


class ResponseEnded(Spec):
    """The result of a background task; the response itself is in its row."""

    status: str
