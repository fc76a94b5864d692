"""POST /v1/responses, and the routes of stored responses."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.generation.run import run, unless_client_leaves
from api.json_body import PromptRoute
from api.models.first_use import answering_target
from api.pagination import After, Limit
from api.responses import service
from api.responses.stream import event_response, stored_events, storing
from core.inference.responses.events import respond, response_events
from core.inference.responses.plan import plan_response
from core.inference.responses.schemas import ResponseBody
from core.inference.responses.truncation import begun_response
from core.records.responses import delete_response
from core.spec.ids import ResponseId

router = APIRouter(
    prefix="/responses",
    tags=["Responses"],
    route_class=PromptRoute,
    dependencies=[requires("inference")],
)


@router.post("", response_class=JSONResponse)
async def create_response(
    body: ResponseBody, request: Request, state: FromState, caller: FromCaller
) -> Response:
    target = await answering_target(state, caller, body.model)
    items = await run_in_threadpool(service.items_of, state, caller, body)
    plan = plan_response(target, caller.project, body, items)
    if body.background:
        queue = partial(service.queue, is_streamed=bool(body.stream))
        queued = await run_in_threadpool(queue, state, caller, plan, items)
        if not body.stream:
            return JSONResponse(queued)
        return event_response(stored_events(state, caller, ResponseId(plan.id), after=-1))
    events = begun_response(plan, partial(run, state.engines))
    begun = await unless_client_leaves(request, events)
    if body.stream:
        return event_response(storing(state, caller, response_events(plan, begun), items))
    response = await unless_client_leaves(request, respond(plan, begun))
    await run_in_threadpool(service.store, state, caller, response, items)
    return JSONResponse(response)


@router.get("/{response_id}", response_class=JSONResponse)
async def retrieve_response(
    response_id: ResponseId,
    state: FromState,
    caller: FromCaller,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=-1, le=2**53)] = -1,
) -> Response:
    """Return a response or, with `stream`, the events of a background response."""
    if stream:
        await run_in_threadpool(service.require_stream, state, caller, response_id)
        return event_response(stored_events(state, caller, response_id, starting_after))
    return JSONResponse(await run_in_threadpool(service.get, state, caller, response_id))


@router.delete("/{response_id}", response_class=JSONResponse)
def remove_response(response_id: ResponseId, state: FromState, caller: FromCaller) -> Response:
    with state.transaction() as transaction:
        delete_response(transaction.session, caller.project, response_id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


@router.post("/{response_id}/cancel", response_class=JSONResponse)
def cancel_response(response_id: ResponseId, state: FromState, caller: FromCaller) -> Response:
    with state.transaction() as transaction:
        response = service.cancel(transaction, caller, response_id)
    return JSONResponse(response)


@router.get("/{response_id}/input_items", response_class=JSONResponse)
def list_input_items(
    response_id: ResponseId,
    state: FromState,
    caller: FromCaller,
    after: After = None,
    limit: Limit = 20,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    with state.database.reading() as session:
        page = service.input_items(
            session, caller, response_id, after=after, limit=limit, order=order
        )
    return JSONResponse(page)
