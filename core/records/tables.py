"""Every table. Migrations compare the database with this file and nothing else.

Times are Unix seconds (double). Every row names its project: another project's row is
never found. Lists run newest first over (created_at, id), which is why those pairs are
indexed.
"""

import time
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def _only(condition: str) -> dict[str, Any]:
    """Arguments of an index over the rows that meet `condition`."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Table(DeclarativeBase):
    metadata = MetaData(naming_convention=_NAMING)
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it as a class attribute)
        str: String(255),
        float: Double,
        dict[str, Any]: JSON(none_as_null=True),
        list[dict[str, Any]]: JSON(none_as_null=True),
    }


class Project(Table):
    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[float] = mapped_column(default=time.time)


class File(Table):
    """An uploaded or produced file; its bytes are the blob `blob_key` in storage."""

    __tablename__ = "files"
    __table_args__ = (Index(None, "project_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[float] = mapped_column(default=time.time)
    filename: Mapped[str] = mapped_column(Text)
    purpose: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    blob_key: Mapped[str]
    report: Mapped[dict[str, Any] | None]
    """A `core.spec.dataset.DatasetReport` when the purpose is fine-tune."""


class Job(Table):
    """A fine-tuning job. `status` is written by `core.records.jobs.advance` alone."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        # Small, however long the history grows: what can be claimed, and what can expire.
        Index("ix_jobs_unfinished", "created_at", "id", **_only("finished_at IS NULL")),
        Index("ix_jobs_leased", "lease_expires_at", **_only("lease_expires_at IS NOT NULL")),
        Index(
            "ix_jobs_leaving_states",
            "finished_at",
            **_only("finished_at IS NOT NULL AND resume_states IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[float] = mapped_column(default=time.time)
    status: Mapped[str]
    requested_model: Mapped[str]
    suffix: Mapped[str | None]
    training_file: Mapped[str]
    validation_file: Mapped[str | None]
    spec: Mapped[dict[str, Any]]
    """The `core.spec.run.JobSpec` that is run."""
    user_metadata: Mapped[dict[str, Any] | None]

    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    """Set exactly when the status is final."""
    estimated_finish: Mapped[float | None]
    step: Mapped[int] = mapped_column(default=0)
    """Optimiser steps done; back to the step of the newest resume state when a claim ends."""
    total_steps: Mapped[int | None]
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    fine_tuned_model: Mapped[str | None]
    result_file: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    """`{code, message, param}` of a failed job."""
    resume_states: Mapped[list[dict[str, Any]] | None]
    """`core.records.resume_states.ResumeState`s, newest first, until housekeeping removes them."""
    pause_requested_at: Mapped[float | None]
    """Set while a worker holds the job and its owner wants it parked; ends with the claim."""
    paused_at: Mapped[float | None]
    """Set exactly when the status is `paused`."""

    event_count: Mapped[int] = mapped_column(default=0)
    claim_token: Mapped[int] = mapped_column(default=0)
    """Fencing token: rises when a claim begins and when it ends, whoever ends it."""
    claimed_by: Mapped[str | None]
    lease_expires_at: Mapped[float | None]
    """By the database's clock. None when nobody holds the job."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Claims since the last resume state, without those that pause or release ended.

    The cap on crashes compares with this.
    """


class JobMetadata(Table):
    """The user's key/value pairs again, indexed for the list filter `metadata[k]=v`."""

    __tablename__ = "job_metadata"
    __table_args__ = (Index(None, "project_id", "key", "value"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    value: Mapped[str] = mapped_column(String(512))


class JobEvent(Table):
    """One line of a job's history; `sequence` counts from 1 within the job."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)
    type: Mapped[str]
    """`message` or `metrics`, as in OpenAI's API."""
    level: Mapped[str]
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any] | None]

    @property
    def id(self) -> str:
        """`ftevent-<job>-<sequence>`: readable, unique and sortable within a job."""
        return f"ftevent-{self.job_id.removeprefix('ftjob-')}-{self.sequence}"


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


class MaskAudit(Table):
    """What a run trains on, token by token: of a job (the same id), or asked for without one."""

    __tablename__ = "mask_audits"
    __table_args__ = (
        Index("ix_mask_audits_waiting", "created_at", "id", **_only("finished_at IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[float] = mapped_column(default=time.time)
    training_file: Mapped[str]
    spec: Mapped[dict[str, Any] | None]
    """The `core.spec.run.JobSpec` to look with; None for that of a job."""
    blob_key: Mapped[str | None]
    """Of the training file, when there is no job."""
    taken_at: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0)
    finished_at: Mapped[float | None]
    rows: Mapped[list[dict[str, Any]] | None]
    """`core.spec.mask.MaskRow`s."""
    error: Mapped[dict[str, Any] | None]
    """`{code, message, param}` of one that failed."""


class OutboxMessage(Table):
    """A wake-up call that the broker must get; the row goes when a worker claims the job."""

    __tablename__ = "outbox"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    send_after: Mapped[float] = mapped_column(index=True)
    sent_count: Mapped[int] = mapped_column(Integer, default=0)


class Worker(Table):
    """A living worker; its row is refreshed with every beat and removed when it stops."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[float]
    device: Mapped[str]


class RegisteredEngine(Table):
    """A living engine; its row is refreshed with every heartbeat and removed when it stops."""

    __tablename__ = "engines"

    url: Mapped[str] = mapped_column(primary_key=True)
    """Where the API reaches it, which no two engines share."""
    seen_at: Mapped[float]
    """By the database's clock."""
    report: Mapped[dict[str, Any]]
    """The newest `core.spec.engine_protocol.EngineReport`."""
