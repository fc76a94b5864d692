"""Stored responses, from their creation to their expiry, and the events of background responses."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, undefer

from core.records import leases
from core.records.database import database_now
from core.records.owned import missing, owned_by
from core.records.tables import OutputItem, ResponseEvents, StoredResponse, Task
from core.records.tasks import TaskClaim, create_task, forget_tasks
from core.spec.ids import ProjectId, ResponseId
from core.spec.response import ResponsePlan

RESPONSE = "response"
"""The kind of task of a background response."""

Item = dict[str, Any]

READ_AT_ONCE = 50
"""Rows in memory while many are read; each may have megabytes."""


def store_response(
    session: Session,
    project_id: ProjectId,
    body: dict[str, Any],
    items: Sequence[Item],
    *,
    kept_seconds: float,
) -> None:
    """Store a finished response with the items that the model has read."""
    _add(session, project_id, body, items, kept_seconds, is_finished=True)
    _add_output_items(session, project_id, body)


def queue_response(
    session: Session,
    project_id: ProjectId,
    body: dict[str, Any],
    items: Sequence[Item],
    plan: ResponsePlan,
    *,
    events: Sequence[dict[str, Any]],
    kept_seconds: float,
) -> Task:
    """Store a background response and create its task.

    Its events are stored from `events` on; none of them if it is empty.
    """
    is_streamed = bool(events)
    _add(session, project_id, body, items, kept_seconds, is_finished=False, is_streamed=is_streamed)
    if events:
        _add_events(session, project_id, ResponseId(plan.id), events)
    return create_task(session, project_id, RESPONSE, subject=plan.id, payload=plan)


def get_response(
    session: Session,
    project_id: ProjectId,
    id_: ResponseId,
    *,
    lock: bool = False,
    with_items: bool = False,
) -> StoredResponse:
    """Return a response that has not expired; NotFound if this project has none with this id."""
    query = select(StoredResponse).where(
        StoredResponse.id == id_,
        owned_by(StoredResponse, project_id),
        StoredResponse.expires_at > database_now(),
    )
    if lock:
        query = query.with_for_update()
    if with_items:
        query = query.options(undefer(StoredResponse.items))
    response = session.scalars(query).one_or_none()
    if response is None:
        raise missing(StoredResponse, id_)
    return response


def responses_for_items(
    session: Session,
    project_id: ProjectId,
    *,
    created_after: float | None,
    created_before: float | None,
) -> Iterator[StoredResponse]:
    """Yield the finished responses with the items that the model has read, the newest first."""
    query = (
        select(StoredResponse)
        .where(
            owned_by(StoredResponse, project_id),
            StoredResponse.expires_at > database_now(),
            StoredResponse.is_finished,
        )
        .options(undefer(StoredResponse.items))
    )
    if created_after is not None:
        query = query.where(StoredResponse.created_at > created_after)
    if created_before is not None:
        query = query.where(StoredResponse.created_at < created_before)
    newest = query.order_by(StoredResponse.created_at.desc(), StoredResponse.id.desc())
    yield from session.scalars(newest.execution_options(yield_per=READ_AT_ONCE))


def find_output_items(
    session: Session, project_id: ProjectId, ids: Collection[str]
) -> dict[str, Item]:
    """Return the items of stored outputs with these ids; unknown ids are left out."""
    if not ids:
        return {}
    bodies = session.scalars(
        select(StoredResponse.body)
        .join(OutputItem, OutputItem.response_id == StoredResponse.id)
        .where(
            OutputItem.id.in_(ids),
            owned_by(OutputItem, project_id),
            StoredResponse.expires_at > database_now(),
        )
    )
    return {item["id"]: item for body in bodies for item in body["output"] if item["id"] in ids}


def find_response_task(session: Session, project_id: ProjectId, id_: ResponseId) -> Task | None:
    """Return the task of a background response; None once it is cancelled."""
    return session.scalars(
        select(Task).where(owned_by(Task, project_id), Task.kind == RESPONSE, Task.subject == id_)
    ).one_or_none()


def finish_response(session: Session, claim: TaskClaim, body: dict[str, Any]) -> None:
    """Store the end of a background response; StaleClaim if its task was cancelled."""
    leases.hold(session, claim)
    response = session.scalars(
        select(StoredResponse).where(StoredResponse.id == body["id"]).with_for_update()
    ).one()
    response.body, response.is_finished = body, True
    _add_output_items(session, claim.project_id, body)


def cancel_response(session: Session, project_id: ProjectId, id_: ResponseId) -> StoredResponse:
    """End a background response and its task, which ends its generation.

    A finished response is returned unchanged.
    """
    _forget_tasks(session, project_id, [id_])
    response = get_response(session, project_id, id_, lock=True)
    if not response.is_finished:
        response.body, response.is_finished = {**response.body, "status": "cancelled"}, True
    return response


def delete_response(session: Session, project_id: ProjectId, id_: ResponseId) -> None:
    """Delete a response with its items, events and task."""
    _forget_tasks(session, project_id, [id_])
    session.delete(get_response(session, project_id, id_, lock=True))


def _forget_tasks(session: Session, project_id: ProjectId, ids: Collection[ResponseId]) -> None:
    forget_tasks(session, owned_by(Task, project_id), Task.kind == RESPONSE, Task.subject.in_(ids))


def forget_expired_responses(session: Session, limit: int = 1000) -> None:
    """Delete responses that have expired, the oldest first, with everything of theirs."""
    now = session.scalars(select(database_now())).one()  # a constant, so that an index is used
    expired = session.execute(
        select(StoredResponse.project_id, StoredResponse.id)
        .where(StoredResponse.expires_at <= now)
        .order_by(StoredResponse.expires_at)
        .limit(limit)
    ).all()
    ids_by_project: dict[ProjectId, list[ResponseId]] = {}
    for project_id, id_ in expired:
        ids_by_project.setdefault(project_id, []).append(id_)
    for project_id, ids in ids_by_project.items():
        _forget_tasks(session, project_id, ids)
        session.execute(delete(StoredResponse).where(StoredResponse.id.in_(ids)))


def append_events(session: Session, claim: TaskClaim, events: Sequence[dict[str, Any]]) -> None:
    """Store the next events of a background response; StaleClaim if its task was cancelled."""
    leases.hold(session, claim)
    _add_events(session, claim.project_id, ResponseId(claim.payload["frame"]["id"]), events)


def last_event(session: Session, id_: ResponseId) -> int:
    """Return the number of the last stored event; -1 without one."""
    query = select(func.max(ResponseEvents.last)).where(ResponseEvents.response_id == id_)
    last = session.scalars(query).one()
    return -1 if last is None else last


def events_after(
    session: Session, project_id: ProjectId, id_: ResponseId, after: int
) -> Iterator[Mapping[str, Any]]:
    """Yield the stored events with numbers above `after`, in order."""
    rows = session.scalars(
        select(ResponseEvents)
        .where(
            owned_by(ResponseEvents, project_id),
            ResponseEvents.response_id == id_,
            ResponseEvents.last > after,
        )
        .order_by(ResponseEvents.last)
    )
    for row in rows:
        yield from (event for event in row.events if event["sequence_number"] > after)


def _add(
    session: Session,
    project_id: ProjectId,
    body: dict[str, Any],
    items: Sequence[Item],
    kept_seconds: float,
    *,
    is_finished: bool,
    is_streamed: bool = False,
) -> None:
    session.add(
        StoredResponse(
            id=body["id"],
            project_id=project_id,
            expires_at=database_now() + kept_seconds,
            is_finished=is_finished,
            is_streamed=is_streamed,
            body=body,
            items=list(items),
        )
    )
    session.flush()


def _add_output_items(session: Session, project_id: ProjectId, body: dict[str, Any]) -> None:
    for item in body["output"]:
        row = OutputItem(id=item["id"], project_id=project_id, response_id=body["id"])
        session.merge(row)  # the answer to an earlier commit may have been lost


def _add_events(
    session: Session, project_id: ProjectId, id_: ResponseId, events: Sequence[dict[str, Any]]
) -> None:
    last = events[-1]["sequence_number"]
    session.merge(
        ResponseEvents(response_id=id_, last=last, project_id=project_id, events=list(events))
    )
