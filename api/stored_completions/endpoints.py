"""Routes of stored chat completions, under /v1/chat/completions."""

from fastapi import APIRouter, Request

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.json_body import JsonRoute
from api.metadata import metadata_filter
from api.pagination import After, Limit
from api.stored_completions import service
from api.stored_completions.schemas import (
    CompletionObject,
    CompletionsPage,
    DeletedCompletion,
    MessagesPage,
    UpdateCompletion,
)
from core.records.pages import Order
from core.spec.ids import CompletionId

router = APIRouter(
    prefix="/chat/completions",
    tags=["Chat"],
    route_class=JsonRoute,
    dependencies=[requires("inference")],
)


@router.get("")
def list_chat_completions(
    request: Request,
    state: FromState,
    caller: FromCaller,
    model: str | None = None,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> CompletionsPage:
    """Those with `store: true`. `metadata[k]=v` selects completions with that pair."""
    wanted = metadata_filter(request.query_params)
    with state.database.reading() as session:
        return service.find(
            session,
            caller,
            model=model,
            metadata=wanted.pairs,
            after=after,
            limit=limit,
            order=order,
        )


@router.get("/{completion_id}")
def retrieve_chat_completion(
    completion_id: CompletionId, state: FromState, caller: FromCaller
) -> CompletionObject:
    with state.database.reading() as session:
        return service.get(session, caller, completion_id)


@router.post("/{completion_id}")
def update_chat_completion(
    completion_id: CompletionId, body: UpdateCompletion, state: FromState, caller: FromCaller
) -> CompletionObject:
    """Replace the metadata."""
    with state.transaction() as transaction:
        return service.update(transaction, caller, completion_id, body)


@router.delete("/{completion_id}")
def delete_chat_completion(
    completion_id: CompletionId, state: FromState, caller: FromCaller
) -> DeletedCompletion:
    with state.transaction() as transaction:
        return service.delete(transaction, caller, completion_id)


@router.get("/{completion_id}/messages")
def list_chat_completion_messages(
    completion_id: CompletionId,
    state: FromState,
    caller: FromCaller,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> MessagesPage:
    with state.database.reading() as session:
        return service.messages(
            session, caller, completion_id, after=after, limit=limit, order=order
        )
