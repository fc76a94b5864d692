"""Sweeps and their trials. A trial is a job."""

from typing import Any

from sqlalchemy import ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Owned, Table, rows_where
from core.spec.ids import JobId, ProjectId, SweepId


class Sweep(Owned):
    """Trials of one job, of which the best is kept. `core.records.sweeps` writes `status`.

    `finished_at` is set if and only if the status is final.
    """

    __tablename__ = "sweeps"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        Index("ix_sweeps_unfinished", "created_at", "id", **rows_where("finished_at IS NULL")),
    )

    noun = "sweep"
    id_param = "sweep_id"

    id: Mapped[SweepId] = mapped_column(primary_key=True)
    status: Mapped[str]
    """A `core.spec.sweep.SweepStatus`."""
    spec: Mapped[dict[str, Any]]
    """The `core.spec.sweep.SweepSpec`."""
    rung: Mapped[int] = mapped_column(default=0)
    """The index of the rung that the trials train for; the number of rungs for the end."""
    winner: Mapped[JobId | None]
    error: Mapped[dict[str, Any] | None]
    """`{code, message, param}` of a failed sweep."""
    finished_at: Mapped[float | None]


class SweepTrial(Table):
    """A job as a trial of a sweep; `number` counts from 0."""

    __tablename__ = "sweep_trials"
    __table_args__ = (Index(None, "job_id", unique=True),)

    sweep_id: Mapped[SweepId] = mapped_column(ForeignKey("sweeps.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[ProjectId] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[JobId] = mapped_column(ForeignKey("jobs.id"))
    parameters: Mapped[dict[str, Any]]
    results: Mapped[list[dict[str, Any]] | None]
    """`core.spec.trial.TrialResult`s, oldest first. The worker of the job adds them."""
    outcome: Mapped[str | None]
    """A `core.spec.trial.TrialOutcome`; None while the trial is in the sweep."""
    reason: Mapped[str | None] = mapped_column(Text)
    """Why the trial ended as it did."""
