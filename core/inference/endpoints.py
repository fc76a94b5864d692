"""The endpoints that answer a body without HTTP: for each URL its body and how it is answered.

A batch serves every row of `ENDPOINTS`. A new endpoint is one row: the class of its body, and a
function that asks the engines and returns OpenAI's object.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from core.errors import InvalidRequest
from core.inference.answer import Answer, Events, collect
from core.inference.chat import chat_completion
from core.inference.completion import text_completion
from core.inference.embeddings import EmbeddingBody, embedding_list, plan_embeddings
from core.inference.invalid_body import invalid_object
from core.inference.plan import Plan, plan_chat, plan_completion
from core.inference.responses.events import respond
from core.inference.responses.items import given_items
from core.inference.responses.plan import plan_response
from core.inference.responses.schemas import ResponseBody
from core.inference.responses.truncation import begun_response
from core.inference.schemas import ChatBody, CompletionBody
from core.inference.targets import Target
from core.spec.engine_calls import EMBED, Answered, Asked, Call
from core.spec.generation import AnswerEvent, GenerationRequest
from core.spec.ids import ProjectId

AnyBody = TypeVar("AnyBody", bound=BaseModel)


class Engine(Protocol):
    """One engine, or a choice among several. Errors are `TunesmithError`s."""

    def events(self, request: GenerationRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the events of an answer."""
        ...

    async def ask(self, call: Call[Asked, Answered], request: Asked) -> Answered:
        """Return the only answer of a request."""
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


async def _response(
    engine: Engine, target: Target, project: ProjectId, body: ResponseBody
) -> dict[str, Any]:
    """Answer without the store of responses, which a batch neither reads nor writes."""
    _refuse_stored(body)
    alone = body.model_copy(update={"store": False})
    plan = plan_response(target, project, alone, given_items(body.input, {}))
    return await respond(plan, await begun_response(plan, partial(_events_behind_live, engine)))


def _refuse_stored(body: ResponseBody) -> None:
    for name, hint in (
        ("previous_response_id", "send the items of the conversation in input"),
        ("background", "a batch runs in the background anyway; remove it"),
    ):
        if getattr(body, name):
            raise InvalidRequest(
                f"A request of a batch cannot have {name}: {hint}.",
                param=name,
                code="unsupported_parameter",
            )


async def _embeddings(
    engine: Engine, target: Target, project: ProjectId, body: EmbeddingBody
) -> dict[str, Any]:
    plan = plan_embeddings(target, project, body)
    requests = [each.model_copy(update={"background": True}) for each in plan.requests]
    return embedding_list(plan, [await engine.ask(EMBED, each) for each in requests])


async def _generated(engine: Engine, plan: Plan) -> Answer:
    return await collect(_events_behind_live(engine, plan.requests), plan.requests)


def _events_behind_live(engine: Engine, requests: Sequence[GenerationRequest]) -> Events:
    return events_of(engine, [each.model_copy(update={"background": True}) for each in requests])


async def events_of(engine: Engine, requests: Sequence[GenerationRequest]) -> Events:
    """Yield the events of requests, which are sent one after another."""
    for index, request in enumerate(requests):
        async with aclosing(engine.events(request)) as events:
            async for event in events:
                yield index, event


ENDPOINTS: Mapping[str, Endpoint[Any]] = {
    "/v1/chat/completions": Endpoint(ChatBody, _chat),
    "/v1/completions": Endpoint(CompletionBody, _completion),
    "/v1/responses": Endpoint(ResponseBody, _response),
    "/v1/embeddings": Endpoint(EmbeddingBody, _embeddings),
}
"""By the URL that a line of a batch names."""
