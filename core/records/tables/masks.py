"""The masks of jobs. A mask that is requested without a job is a task."""

import time
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Table
from core.spec.ids import JobId, ProjectId


class JobMask(Table):
    """The mask of the newest attempt of a job."""

    __tablename__ = "job_masks"

    job_id: Mapped[JobId] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    project_id: Mapped[ProjectId] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[float] = mapped_column(default=time.time)
    rows: Mapped[list[dict[str, Any]]]
    """`core.spec.mask.MaskRow`s."""
