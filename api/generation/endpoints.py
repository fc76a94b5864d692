"""POST /v1/chat/completions and POST /v1/completions."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.generation.chat import chat_chunks, chat_completion
from api.generation.completion import text_chunks, text_completion
from api.generation.plan import plan_chat, plan_completion
from api.generation.run import begun, collect, run, unless_client_leaves
from api.generation.schemas import ChatBody, CompletionBody
from api.generation.sse import sse_response
from api.json_body import PromptRoute

router = APIRouter(route_class=PromptRoute, dependencies=[requires("inference")])


@router.post("/chat/completions", tags=["Chat"], response_class=JSONResponse)
async def create_chat_completion(
    body: ChatBody, request: Request, state: FromState, caller: FromCaller
) -> Response:
    plan = await plan_chat(state, caller, body)
    events = run(state.engines, plan.requests)
    if body.stream:
        events = await unless_client_leaves(request, begun(events))
        return sse_response(chat_chunks(plan, events))
    answer = await unless_client_leaves(request, collect(events, plan.requests))
    return JSONResponse(chat_completion(plan, answer))


@router.post("/completions", tags=["Completions"], response_class=JSONResponse)
async def create_completion(
    body: CompletionBody, request: Request, state: FromState, caller: FromCaller
) -> Response:
    plan = await plan_completion(state, caller, body)
    events = run(state.engines, plan.requests)
    echo = bool(body.echo)
    if body.stream:
        events = await unless_client_leaves(request, begun(events))
        return sse_response(text_chunks(plan, events, echo=echo))
    answer = await unless_client_leaves(request, collect(events, plan.requests))
    return JSONResponse(text_completion(plan, answer, echo=echo))
