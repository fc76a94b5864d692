"""Stored chat completions: writes, lists, deletion, expiry."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session, undefer

from core.records.database import database_now
from core.records.owned import missing, owned_by
from core.records.pages import Order, Page, page
from core.records.tables import StoredCompletion, StoredCompletionMetadata
from core.spec.ids import CompletionId, ProjectId

READ_AT_ONCE = 50
"""Rows in memory while many are read; each may have a megabyte."""


def store_completion(
    session: Session,
    project_id: ProjectId,
    body: Mapping[str, Any],
    messages: Sequence[Mapping[str, Any]],
    metadata: dict[str, str] | None,
    *,
    bytes_: int,
    kept_seconds: float,
) -> None:
    session.add(
        StoredCompletion(
            id=body["id"],
            project_id=project_id,
            expires_at=database_now() + kept_seconds,
            model=body["model"],
            user_metadata=metadata,
            bytes=bytes_,
            body=dict(body),
            messages=[dict(message) for message in messages],
        )
    )
    session.flush()
    _add_metadata(session, project_id, body["id"], metadata)


def get_completion(
    session: Session, project_id: ProjectId, id_: CompletionId, *, is_locked: bool = False
) -> StoredCompletion:
    """Return a completion that has not expired, with body and messages; NotFound without one."""
    query = _living(project_id).where(StoredCompletion.id == id_).options(*_WHOLE)
    found = session.scalars(query.with_for_update() if is_locked else query).one_or_none()
    if found is None:
        raise missing(StoredCompletion, id_)
    return found


def list_completions(
    session: Session,
    project_id: ProjectId,
    *,
    model: str | None,
    metadata: Mapping[str, str],
    after: str | None,
    limit: int,
    order: Order,
) -> Page[StoredCompletion]:
    """Return completions without bodies, which are read when they are looked at."""
    query = _filtered(project_id, model, metadata)
    return page(session, query, StoredCompletion, project_id, after=after, limit=limit, order=order)


def completions_for_items(
    session: Session,
    project_id: ProjectId,
    *,
    model: str | None,
    metadata: Mapping[str, str],
    created_after: float | None,
    created_before: float | None,
    limit: int,
) -> Iterator[StoredCompletion]:
    """Yield the newest completions, up to `limit`, the newest first."""
    query = _filtered(project_id, model, metadata).options(*_WHOLE)
    if created_after is not None:
        query = query.where(StoredCompletion.created_at > created_after)
    if created_before is not None:
        query = query.where(StoredCompletion.created_at < created_before)
    newest = query.order_by(StoredCompletion.created_at.desc(), StoredCompletion.id.desc())
    yield from session.scalars(newest.limit(limit).execution_options(yield_per=READ_AT_ONCE))


def update_completion(
    session: Session, project_id: ProjectId, id_: CompletionId, metadata: dict[str, str] | None
) -> StoredCompletion:
    """Replace the metadata."""
    found = get_completion(session, project_id, id_, is_locked=True)
    found.user_metadata = metadata
    session.execute(
        delete(StoredCompletionMetadata).where(StoredCompletionMetadata.completion_id == id_)
    )
    _add_metadata(session, project_id, id_, metadata)
    return found


def delete_completion(session: Session, project_id: ProjectId, id_: CompletionId) -> None:
    session.delete(get_completion(session, project_id, id_, is_locked=True))
    session.flush()


def forget_expired_completions(session: Session, limit: int = 1000) -> None:
    """Delete completions that have expired, the oldest first."""
    now = session.scalars(select(database_now())).one()  # a constant, so that an index is used
    expired = (
        select(StoredCompletion.id)
        .where(StoredCompletion.expires_at <= now)
        .order_by(StoredCompletion.expires_at)
        .limit(limit)
    )
    session.execute(
        delete(StoredCompletion)
        .where(StoredCompletion.id.in_(session.scalars(expired).all()))
        .execution_options(synchronize_session=False)
    )


_WHOLE = (undefer(StoredCompletion.body), undefer(StoredCompletion.messages))


def _living(project_id: ProjectId) -> Select[StoredCompletion]:
    return select(StoredCompletion).where(
        owned_by(StoredCompletion, project_id), StoredCompletion.expires_at > database_now()
    )


def _filtered(
    project_id: ProjectId, model: str | None, metadata: Mapping[str, str]
) -> Select[StoredCompletion]:
    query = _living(project_id)
    if model is not None:
        query = query.where(StoredCompletion.model == model)
    for key, value in metadata.items():
        carriers = select(StoredCompletionMetadata.completion_id).where(
            owned_by(StoredCompletionMetadata, project_id),
            StoredCompletionMetadata.key == key,
            StoredCompletionMetadata.value == value,
        )
        query = query.where(StoredCompletion.id.in_(carriers))
    return query


def _add_metadata(
    session: Session, project_id: ProjectId, id_: CompletionId, metadata: dict[str, str] | None
) -> None:
    session.add_all(
        StoredCompletionMetadata(completion_id=id_, key=key, project_id=project_id, value=value)
        for key, value in (metadata or {}).items()
    )
    session.flush()
