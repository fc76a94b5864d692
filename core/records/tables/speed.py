"""Speed tests."""

import time
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Table


class SpeedTest(Table):
    """How fast a base or a tuned model answers; rows of a model are replaced by the next."""

    __tablename__ = "speed_tests"
    __table_args__ = (Index(None, "project_id", "model_id", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[float] = mapped_column(default=time.time)
    model_id: Mapped[str]
    target: Mapped[dict[str, Any]]
    """Base, bundle and serving form that the name stood for."""
    result: Mapped[dict[str, Any]]
    """A `core.spec.speed.SpeedResult`."""
