"""Requests that have made something, with their answers, for clients that repeat them."""

from sqlalchemy import ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Table
from core.spec.ids import ProjectId


class RememberedRequest(Table):
    """A request and its answer, written in the transaction that made what it asked for."""

    __tablename__ = "remembered_requests"
    __table_args__ = (Index(None, "project_id", "fingerprint", "created_at"),)

    project_id: Mapped[ProjectId] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    """Its `Idempotency-Key`, or an id of ours."""
    fingerprint: Mapped[str]
    """The SHA-256 of method, path and body."""
    answer: Mapped[str] = mapped_column(Text)
    """The body that was sent."""
    created_at: Mapped[float] = mapped_column(index=True)
    """By the database's clock."""
