"""Projects, and the files that they own."""

import time
from typing import Any

from sqlalchemy import BigInteger, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Owned, Table, rows_where
from core.spec.ids import FileId, ProjectId


class Project(Table):
    __tablename__ = "projects"

    id: Mapped[ProjectId] = mapped_column(primary_key=True)
    created_at: Mapped[float] = mapped_column(default=time.time)


class File(Owned):
    """An uploaded or produced file; its bytes are the blob `blob_key` in storage."""

    __tablename__ = "files"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        Index(None, "expires_at", **rows_where("expires_at IS NOT NULL")),
    )

    noun = "file"
    id_param = "file_id"
    missing_code = "file_not_found"

    id: Mapped[FileId] = mapped_column(primary_key=True)
    filename: Mapped[str] = mapped_column(Text)
    purpose: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    blob_key: Mapped[str]
    report: Mapped[dict[str, Any] | None]
    """A `core.spec.dataset.DatasetReport` if the purpose is fine-tune."""
    expires_at: Mapped[float | None]
    """When housekeeping may delete the file. None: never."""
