"""The operations of the routes of responses."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from sqlalchemy.orm import Session

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from core.errors import InvalidRequest, NotFound, TunesmithError
from core.inference.responses.events import ResponseWriter
from core.inference.responses.history import read_items
from core.inference.responses.items import Item
from core.inference.responses.output import Status, failure_of
from core.inference.responses.schemas import ResponseBody
from core.records import responses
from core.records.tables import StoredResponse, Task
from core.spec.ids import ResponseId
from core.spec.response import ResponsePlan
from core.tasks.failure import TaskFailure
from core.tasks.kinds import Work

Object = dict[str, Any]
"""OpenAI's object, as stored."""


def items_of(state: AppState, caller: Caller, body: ResponseBody) -> list[Item]:
    """Return the conversation of a request; raises the errors of `read_items`."""
    with state.database.reading() as session:
        return read_items(session, caller.project, body)


def store(state: AppState, caller: Caller, response: Object, items: Sequence[Item]) -> None:
    """Store a finished response unless its request forbids it."""
    if not response["store"]:
        return
    with state.transaction() as transaction:
        responses.store_response(
            transaction.session,
            caller.project,
            response,
            items,
            kept_seconds=state.settings.response_seconds,
        )


def queue(
    state: AppState,
    caller: Caller,
    plan: ResponsePlan,
    items: Sequence[Item],
    *,
    is_streamed: bool,
) -> Object:
    """Store a background response, wake a worker, and return the response that waits."""
    events = ResponseWriter(plan).opening()
    queued: Object = events[0]["response"]
    with state.transaction() as transaction:
        task = responses.queue_response(
            transaction.session,
            caller.project,
            queued,
            items,
            plan,
            events=events if is_streamed else (),
            kept_seconds=state.settings.response_seconds,
        )
        transaction.after_commit(partial(state.broker.wake, Work(task.kind, task.id)))
    return queued


def get(state: AppState, caller: Caller, id_: ResponseId) -> Object:
    with state.database.reading() as session:
        return _current(session, caller, responses.get_response(session, caller.project, id_))


def cancel(transaction: Transaction, caller: Caller, id_: ResponseId) -> Object:
    """End a background response. One that has ended is returned unchanged."""
    session = transaction.session
    response = responses.get_response(session, caller.project, id_)
    if not response.body["background"]:
        raise InvalidRequest(
            "Only responses created with background=true can be cancelled.",
            param="response_id",
            code="invalid_value",
        )
    current = _current(session, caller, response)
    if current["status"] == "failed":
        return current
    return responses.cancel_response(session, caller.project, id_).body


def input_items(
    session: Session,
    caller: Caller,
    id_: ResponseId,
    *,
    after: str | None,
    limit: int,
    order: Literal["asc", "desc"],
) -> Object:
    """Return a page of the items that the model has read."""
    stored = responses.get_response(session, caller.project, id_, with_items=True).items
    items = stored if order == "asc" else stored[::-1]
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise NotFound(f"No item {after!r} to list after.", param="after")
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "has_more": len(items) > limit,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def require_stream(state: AppState, caller: Caller, id_: ResponseId) -> None:
    """Raise InvalidRequest for a response whose events are not stored."""
    with state.database.reading() as session:
        if not responses.get_response(session, caller.project, id_).is_streamed:
            raise InvalidRequest(
                "Only a response created with background=true and stream=true can be streamed "
                "again.",
                param="stream",
                code="invalid_value",
            )


def new_events(
    state: AppState, caller: Caller, id_: ResponseId, after: int
) -> tuple[list[Object], Object]:
    """Return the events of a background response above `after`, and its current state."""
    with state.database.reading() as session:
        response = responses.get_response(session, caller.project, id_)
        events = responses.events_after(session, caller.project, id_, after)
        return [dict(event) for event in events], _current(session, caller, response)


def _current(session: Session, caller: Caller, response: StoredResponse) -> Object:
    """Return the object of a response; the state of an unfinished one is that of its task."""
    if response.is_finished:
        return response.body
    task = responses.find_response_task(session, caller.project, response.id)
    if task is None or task.error is not None:
        return {**response.body, "status": "failed", "error": failure_of(_failure(task))}
    status: Status = "queued" if task.lease_expires_at is None else "in_progress"
    return {**response.body, "status": status}


def _failure(task: Task | None) -> TunesmithError:
    if task is None:
        return TunesmithError("The background task of this response was deleted.")
    return TaskFailure.model_validate(task.error).as_error()
