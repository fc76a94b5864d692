"""The endpoints that answer a body without HTTP: for each URL its body and how it is answered.

A batch serves every row of `ENDPOINTS`. A new endpoint is one row: the class of its body, and a
function that asks the engines and returns OpenAI's object.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from core.errors import InvalidRequest
from core.inference.answer import Answer, Events, collect
from core.inference.chat import chat_completion
from core.inference.completion import text_completion
from core.inference.invalid_body import invalid_object
from core.inference.plan import Plan, plan_chat, plan_completion
from core.inference.schemas import ChatBody, CompletionBody
from core.inference.targets import Target
from core.spec.generation import AnswerEvent, GenerationRequest
from core.spec.ids import ProjectId

AnyBody = TypeVar("AnyBody", bound=BaseModel)


class Engine(Protocol):
    """One engine, or a choice among several. Errors are `TunesmithError`s."""

    def events(self, request: GenerationRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the events of an answer."""
        ...


@dataclass(frozen=True)
class Endpoint(Generic[AnyBody]):
    """One kind of request. `answer` may raise any TunesmithError."""

    body: type[AnyBody]
    answer: Callable[[Engine, Target, ProjectId, AnyBody], Awaitable[dict[str, Any]]]


def checked_body(url: str, body: Mapping[str, Any]) -> BaseModel:
    """Return the body of a request of a batch as the class of its endpoint.

    Raises InvalidRequest for a body that the endpoint would reject, and for a stream.
    """
    try:
        checked: BaseModel = ENDPOINTS[url].body.model_validate(body)
    except ValidationError as error:
        raise invalid_object(error, body, ENDPOINTS[url].body) from None
    if body.get("stream"):
        raise InvalidRequest(
            "A request of a batch cannot be streamed; remove stream.",
            param="stream",
            code="unsupported_parameter",
        )
    return checked


async def answer_in_background(
    url: str, engine: Engine, target: Target, project: ProjectId, body: BaseModel
) -> dict[str, Any]:
    """Return the object that answers a checked body; live requests go before it in the engine."""
    return await ENDPOINTS[url].answer(engine, target, project, body)


async def _chat(
    engine: Engine, target: Target, project: ProjectId, body: ChatBody
) -> dict[str, Any]:
    plan = plan_chat(target, project, body)
    return chat_completion(plan, await _generated(engine, plan))


async def _completion(
    engine: Engine, target: Target, project: ProjectId, body: CompletionBody
) -> dict[str, Any]:
    plan = plan_completion(target, project, body)
    return text_completion(plan, await _generated(engine, plan), echo=bool(body.echo))


async def _generated(engine: Engine, plan: Plan) -> Answer:
    """Wait for the answer to a plan, whose requests are sent one after another."""
    requests = [each.model_copy(update={"background": True}) for each in plan.requests]
    return await collect(_events(engine, requests), requests)


async def _events(engine: Engine, requests: Sequence[GenerationRequest]) -> Events:
    for index, request in enumerate(requests):
        async with aclosing(engine.events(request)) as events:
            async for event in events:
                yield index, event


ENDPOINTS: Mapping[str, Endpoint[Any]] = {
    "/v1/chat/completions": Endpoint(ChatBody, _chat),
    "/v1/completions": Endpoint(CompletionBody, _completion),
}
"""By the URL that a line of a batch names."""
