"""The workers and engines that are alive."""

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Table


class Worker(Table):
    """A living worker; its row is refreshed with every heartbeat and deleted when it stops."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[float]
    device: Mapped[str]
    queue: Mapped[str]
    """The `core.tasks.kinds.Queue` that it serves."""
    calibration: Mapped[dict[str, Any] | None]
    """The `core.spec.calibration.Calibration` of its device; None until it is measured."""


class RegisteredEngine(Table):
    """A living engine; its row is refreshed with every heartbeat and deleted when it stops."""

    __tablename__ = "engines"

    url: Mapped[str] = mapped_column(primary_key=True)
    """Its address for the API, different for every engine."""
    seen_at: Mapped[float]
    """By the database's clock."""
    report: Mapped[dict[str, Any]]
    """The newest `core.spec.engine_protocol.EngineReport`."""
