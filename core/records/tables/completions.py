"""Chat completions that were stored on request (`store`), until they expire."""

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Owned, Table
from core.spec.ids import CompletionId, ProjectId


class StoredCompletion(Owned):
    """The answer to a chat request, with its messages."""

    __tablename__ = "stored_completions"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        Index(None, "expires_at"),
    )

    noun = "stored chat completion"
    id_param = "completion_id"

    id: Mapped[CompletionId] = mapped_column(primary_key=True)
    expires_at: Mapped[float]
    """By the database's clock."""
    model: Mapped[str]
    user_metadata: Mapped[dict[str, Any] | None]
    bytes: Mapped[int] = mapped_column(BigInteger)
    """Of the answer and the messages, as JSON."""
    body: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    """OpenAI's object, and the parameters of the request."""
    messages: Mapped[list[dict[str, Any]]] = mapped_column(deferred=True)
    """Of the request."""


class StoredCompletionMetadata(Table):
    """A copy of the user's key/value pairs, indexed for the filter `metadata[k]=v`."""

    __tablename__ = "stored_completion_metadata"
    __table_args__ = (Index(None, "project_id", "key", "value"),)

    completion_id: Mapped[CompletionId] = mapped_column(
        ForeignKey("stored_completions.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[ProjectId]
    value: Mapped[str] = mapped_column(String(512))
