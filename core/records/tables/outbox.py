"""Wake-up messages for the broker."""

from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Table


class OutboxMessage(Table):
    """A wake-up message for a job or a task; deleted when a worker claims the work."""

    __tablename__ = "outbox"

    kind: Mapped[str] = mapped_column(primary_key=True)
    """A kind of `core.tasks.kinds`, or `job`."""
    id: Mapped[str] = mapped_column(primary_key=True)
    send_after: Mapped[float] = mapped_column(index=True)
    sent_count: Mapped[int] = mapped_column(default=0)
