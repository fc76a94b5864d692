"""The verdicts on the final models of jobs."""

from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Owned
from core.spec.ids import JobId, ModelId


class StoredVerdict(Owned):
    """The verdict on a final model, with the same id; deleted with it."""

    __tablename__ = "verdicts"

    noun = "evaluation of a job"
    id_param = "fine_tuning_job_id"
    missing_code = "evaluation_not_found"

    id: Mapped[ModelId] = mapped_column(primary_key=True)
    job_id: Mapped[JobId] = mapped_column(ForeignKey("jobs.id"), index=True)
    verdict: Mapped[dict[str, Any]]
    """`core.spec.verdict.Verdict`."""
