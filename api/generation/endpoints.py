"""POST /v1/chat/completions and POST /v1/completions."""

from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from api.app_state import AppState, FromState
from api.auth.caller import Caller, FromCaller, requires
from api.generation.run import run, unless_client_leaves
from api.generation.sse import sse_response
from api.json_body import PromptRoute
from api.models.first_use import answering_target
from api.stored_completions.storing import Recording, check_metadata, storing, storing_stream
from core.inference.answer import Events, begun, collect
from core.inference.chat import chat_chunks, chat_completion
from core.inference.completion import text_chunks, text_completion
from core.inference.plan import Plan, plan_chat, plan_completion
from core.inference.schemas import ChatBody, CompletionBody
from core.inference.usage import chunks_with_usage

router = APIRouter(route_class=PromptRoute, dependencies=[requires("inference")])


@router.post("/chat/completions", tags=["Chat"], response_class=JSONResponse)
async def create_chat_completion(
    body: ChatBody, request: Request, state: FromState, caller: FromCaller
) -> Response:
    check_metadata(body)
    target = await answering_target(state, caller, body.model)
    plan = plan_chat(target, caller.project, body)
    events = run(state.engines, plan.requests)
    if body.stream:
        events = await unless_client_leaves(request, begun(events))
        return _streamed(state, caller, body, plan, events)
    answer = await unless_client_leaves(request, collect(events, plan.requests))
    completion = chat_completion(plan, answer)
    return JSONResponse(completion, background=storing(state, caller, body, completion))


def _streamed(
    state: AppState, caller: Caller, body: ChatBody, plan: Plan, events: Events
) -> Response:
    if not body.store:
        return sse_response(chunks_with_usage(plan, events, chat_chunks))
    recording = Recording()
    response = sse_response(chunks_with_usage(plan, recording.of(events), chat_chunks))
    response.background = storing_stream(state, caller, body, plan, recording)
    return response


@router.post("/completions", tags=["Completions"], response_class=JSONResponse)
async def create_completion(
    body: CompletionBody, request: Request, state: FromState, caller: FromCaller
) -> Response:
    target = await answering_target(state, caller, body.model)
    plan = plan_completion(target, caller.project, body)
    events = run(state.engines, plan.requests)
    echo = bool(body.echo)
    if body.stream:
        events = await unless_client_leaves(request, begun(events))
        return sse_response(chunks_with_usage(plan, events, partial(text_chunks, echo=echo)))
    answer = await unless_client_leaves(request, collect(events, plan.requests))
    return JSONResponse(text_completion(plan, answer, echo=echo))
