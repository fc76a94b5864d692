"""What jobs leave behind that can be called."""

import time
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Table


class Checkpoint(Table):
    """A servable adapter at one step of a job."""

    __tablename__ = "checkpoints"
    __table_args__ = (Index(None, "job_id", "step", unique=True),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[float] = mapped_column(default=time.time)
    step: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    model_id: Mapped[str]


class TunedModel(Table):
    """A model that can be called: the final one of a job, or one of its checkpoints."""

    __tablename__ = "tuned_models"
    __table_args__ = (Index(None, "project_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    created_at: Mapped[float] = mapped_column(default=time.time)
    base: Mapped[dict[str, Any]]
    """The `core.spec.run.BaseModelSpec` that it was trained on."""
    bundle_key: Mapped[str]
    bundle_sha256: Mapped[str]
    checkpoint_step: Mapped[int | None]
    """None for the final model."""
    parity: Mapped[dict[str, Any] | None]
    """`core.spec.parity.Parity`; None for a checkpoint until it is first asked, and for models that
    are older than this check."""
    parity_reference: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    """`core.spec.parity.ParityReference` of a model that is still to be checked."""
    parity_due_at: Mapped[float | None]
    """When the model may be checked: later than now while someone is at it or has tried in vain,
    None when there is nothing to check. By the database's clock."""
    published_at: Mapped[float | None]
    """When its owner had it answer although it is not served as it was trained."""
    serving: Mapped[dict[str, Any] | None]
    """The `core.spec.serving.ServingSpec` that was asked for; None for the adapter form."""
