"""The results of jobs that can get requests."""

from typing import Any

from sqlalchemy import ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Owned
from core.spec.ids import CheckpointId, JobId, ModelId


class Checkpoint(Owned):
    """A servable adapter at one step of a job."""

    __tablename__ = "checkpoints"
    __table_args__ = (Index(None, "job_id", "step", unique=True),)

    noun = "checkpoint"
    id_param = "checkpoint_id"

    id: Mapped[CheckpointId] = mapped_column(primary_key=True)
    job_id: Mapped[JobId] = mapped_column(ForeignKey("jobs.id"))
    step: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    model_id: Mapped[ModelId]


class TunedModel(Owned):
    """A model that can get requests: the final one of a job, that of a checkpoint, or one without
    a job, which was imported or merged from others.

    Either `job_id` or `spec` is set: what the model is, is written in one place.
    """

    __tablename__ = "tuned_models"
    __table_args__ = (Index(None, "project_id", "created_at", "id"),)

    noun = "model"
    id_param = "model"
    missing_code = "model_not_found"

    id: Mapped[ModelId] = mapped_column(primary_key=True)
    job_id: Mapped[JobId | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    """None for a model without a job."""
    spec: Mapped[dict[str, Any] | None]
    """The `core.spec.tuned.TunedSpec` of a model without a job."""
    base: Mapped[dict[str, Any]]
    """The `core.spec.base_model.BaseModelSpec` that it was trained on."""
    bundle_key: Mapped[str]
    bundle_sha256: Mapped[str]
    checkpoint_step: Mapped[int | None]
    """None for a final model, and without a job."""
    parity: Mapped[dict[str, Any] | None]
    """`core.spec.parity.Parity`; None for a checkpoint until its first request, and for models that
    are older than this check."""
    parity_reference: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    """`core.spec.parity.ParityReference` of a model that needs a check; of a checked one, only the
    rows, with which its exports are replayed."""
    parity_due_at: Mapped[float | None]
    """The earliest time of the next check: in the future during a check and after a failed one,
    None if there is nothing to check. By the database's clock."""
    unmet_requirements: Mapped[str | None] = mapped_column(Text)
    """The requirements of its job that it does not meet, which withhold it; None if there are
    none."""
    published_at: Mapped[float | None]
    """The time when its owner published it although it was withheld."""
    serving: Mapped[dict[str, Any] | None]
    """The requested `core.spec.serving.ServingSpec`; None for the adapter form."""
