"""The operations of the routes of stored chat completions."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from api.app_state import Transaction
from api.auth.caller import Caller
from api.stored_completions.schemas import (
    CompletionObject,
    CompletionsPage,
    DeletedCompletion,
    MessagesPage,
    UpdateCompletion,
)
from core.errors import NotFound
from core.grading.validate import require_json
from core.records import stored_completions
from core.records.pages import Order, within_bytes
from core.records.tables import StoredCompletion
from core.spec.ids import CompletionId


def find(
    session: Session,
    caller: Caller,
    *,
    model: str | None,
    metadata: Mapping[str, str],
    after: str | None,
    limit: int,
    order: Order,
) -> CompletionsPage:
    """Return a page, which ends early if its completions are large."""
    page = stored_completions.list_completions(
        session,
        caller.project,
        model=model,
        metadata=metadata,
        after=after,
        limit=limit,
        order=order,
    )
    shown = within_bytes(page, lambda row: row.bytes)
    data = [_object(row) for row in shown.rows]
    return CompletionsPage(
        data=data,
        first_id=data[0]["id"] if data else None,
        last_id=data[-1]["id"] if data else None,
        has_more=shown.has_more,
    )


def get(session: Session, caller: Caller, id_: CompletionId) -> CompletionObject:
    return _object(stored_completions.get_completion(session, caller.project, id_))


def update(
    transaction: Transaction, caller: Caller, id_: CompletionId, body: UpdateCompletion
) -> CompletionObject:
    require_json(body.metadata, "metadata")
    return _object(
        stored_completions.update_completion(
            transaction.session, caller.project, id_, body.metadata
        )
    )


def delete(transaction: Transaction, caller: Caller, id_: CompletionId) -> DeletedCompletion:
    stored_completions.delete_completion(transaction.session, caller.project, id_)
    return DeletedCompletion(id=id_)


def messages(
    session: Session,
    caller: Caller,
    id_: CompletionId,
    *,
    after: str | None,
    limit: int,
    order: Order,
) -> MessagesPage:
    stored = stored_completions.get_completion(session, caller.project, id_)
    shown = [_message(f"{id_}-{number}", each) for number, each in enumerate(stored.messages)]
    if order == "desc":
        shown.reverse()
    if after is not None:
        ids = [message["id"] for message in shown]
        if after not in ids:
            raise NotFound(f"No message {after!r} to list after.", param="after")
        shown = shown[ids.index(after) + 1 :]
    data = shown[:limit]
    return MessagesPage(
        data=data,
        first_id=data[0]["id"] if data else None,
        last_id=data[-1]["id"] if data else None,
        has_more=len(shown) > limit,
    )


def _object(stored: StoredCompletion) -> CompletionObject:
    return {**stored.body, "metadata": stored.user_metadata or {}}


def _message(id_: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenAI's form: a content of parts is in `content_parts`."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    shown = {**message, "id": id_, "content": None if parts else content}
    return shown | {"content_parts": parts}
