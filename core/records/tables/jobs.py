"""Fine-tuning jobs, their metadata for the list filter, and their events."""

import time
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Leased, Table, rows_where
from core.spec.ids import FileId, JobId, ModelId, ProjectId, SweepId


class Job(Leased):
    """A fine-tuning job. Only `core.records.jobs.advance` writes `status`.

    `finished_at` is set if and only if the status is final. `attempts` counts the claims since the
    last resume state, except those that ended by a pause or a release.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        # Small regardless of the number of jobs: those that can be claimed, or that can expire.
        Index("ix_jobs_unfinished", "created_at", "id", **rows_where("finished_at IS NULL")),
        Index("ix_jobs_leased", "lease_expires_at", **rows_where("lease_expires_at IS NOT NULL")),
        Index(
            "ix_jobs_leaving_states",
            "finished_at",
            **rows_where("finished_at IS NOT NULL AND resume_states IS NOT NULL"),
        ),
    )

    noun = "fine-tuning job"
    id_param = "fine_tuning_job_id"

    id: Mapped[JobId] = mapped_column(primary_key=True)
    status: Mapped[str]
    requested_model: Mapped[str]
    suffix: Mapped[str | None]
    training_file: Mapped[FileId]
    validation_file: Mapped[FileId | None]
    spec: Mapped[dict[str, Any]]
    """The `core.spec.job.JobSpec` of the run."""
    user_metadata: Mapped[dict[str, Any] | None]

    started_at: Mapped[float | None]
    estimated_finish: Mapped[float | None]
    step: Mapped[int] = mapped_column(default=0)
    """Completed optimizer steps; reset to those of the newest resume state when a claim ends."""
    total_steps: Mapped[int | None]
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    fine_tuned_model: Mapped[ModelId | None]
    result_file: Mapped[FileId | None]
    error: Mapped[dict[str, Any] | None]
    """`{code, message, param}` of a failed job."""
    resume_states: Mapped[list[dict[str, Any]] | None]
    """`core.records.resume_states.ResumeState`s, newest first, until housekeeping removes them."""
    pause_requested_at: Mapped[float | None]
    """Set while the owner wants a claimed job to be paused; cleared when the claim ends."""
    paused_at: Mapped[float | None]
    """Set if and only if the status is `paused`."""
    sweep_id: Mapped[SweepId | None]
    """The sweep of which the job is a trial."""
    pause_at_share: Mapped[float | None]
    """The share of its steps after which the run is evaluated and paused: a rung of its sweep."""

    event_count: Mapped[int] = mapped_column(default=0)


class JobMetadata(Table):
    """A copy of the user's key/value pairs, indexed for the list filter `metadata[k]=v`."""

    __tablename__ = "job_metadata"
    __table_args__ = (Index(None, "project_id", "key", "value"),)

    job_id: Mapped[JobId] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[ProjectId]
    value: Mapped[str] = mapped_column(String(512))


class JobEvent(Table):
    """One event of a job; `sequence` counts from 1 within the job."""

    __tablename__ = "job_events"

    job_id: Mapped[JobId] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[ProjectId]
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
