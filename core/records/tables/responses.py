"""Stored responses of POST /v1/responses, until they expire."""

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Owned, Table
from core.spec.ids import ProjectId, ResponseId


class StoredResponse(Owned):
    """A response, and the conversation before it. The task of a background response has its id as
    subject."""

    __tablename__ = "responses"
    __table_args__ = (Index(None, "expires_at"),)

    noun = "response"
    id_param = "response_id"
    missing_code = "response_not_found"

    id: Mapped[ResponseId] = mapped_column(primary_key=True)
    expires_at: Mapped[float]
    """By the database's clock."""
    is_finished: Mapped[bool]
    """Whether `body` is final; otherwise a task runs the response."""
    is_streamed: Mapped[bool]
    """Whether the events of a background response are stored."""
    body: Mapped[dict[str, Any]]
    """OpenAI's object."""
    items: Mapped[list[dict[str, Any]]] = mapped_column(deferred=True)
    """The items that the model has read, oldest first, including those of earlier responses."""


class OutputItem(Owned):
    """Where an item of an output is, for references to it by its id alone."""

    __tablename__ = "response_items"

    noun = "item"
    id_param = "input"
    missing_code = "item_not_found"

    response_id: Mapped[ResponseId] = mapped_column(
        ForeignKey("responses.id", ondelete="CASCADE"), index=True
    )


class ResponseEvents(Table):
    """Some consecutive events of the stream of a background response."""

    __tablename__ = "response_events"

    response_id: Mapped[ResponseId] = mapped_column(
        ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True
    )
    last: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """The number of the last of them."""
    project_id: Mapped[ProjectId] = mapped_column(ForeignKey("projects.id"))
    events: Mapped[list[dict[str, Any]]]
