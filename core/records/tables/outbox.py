"""Wake-up calls that the broker must get."""

from sqlalchemy import ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Table


class OutboxMessage(Table):
    """A wake-up call that the broker must get; the row goes when a worker claims the job."""

    __tablename__ = "outbox"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    send_after: Mapped[float] = mapped_column(index=True)
    sent_count: Mapped[int] = mapped_column(Integer, default=0)
