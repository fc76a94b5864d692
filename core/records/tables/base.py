"""Shared by all tables: the names of constraints, the types of columns, partial indexes."""

import time
from typing import Any, ClassVar, NewType

from sqlalchemy import JSON, Double, ForeignKey, MetaData, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.spec import ids
from core.spec.ids import ProjectId

_NAME = String(255)

_TYPES: dict[Any, Any] = {
    str: _NAME,
    **{each: _NAME for each in vars(ids).values() if isinstance(each, NewType)},
    float: Double,
    dict[str, Any]: JSON(none_as_null=True),
    list[dict[str, Any]]: JSON(none_as_null=True),
}
"""The type of a column by the type of its attribute; all ids are names."""

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def rows_where(condition: str) -> dict[str, Any]:
    """Return the arguments of a partial index over the rows that satisfy `condition`."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Table(DeclarativeBase):
    metadata = MetaData(naming_convention=_NAMING)
    type_annotation_map = _TYPES


class Owned(Table):
    """A row that one project owns. `core.records.owned` finds it, for that project only."""

    __abstract__ = True

    noun: ClassVar[str]
    """The name of such a row in messages."""
    id_param: ClassVar[str]
    """The request field that usually holds its id."""
    missing_code: ClassVar[str] = "not_found"
    """The error code if there is no such row."""

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[ProjectId] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[float] = mapped_column(default=time.time)


class Leased(Owned):
    """Rows that a worker claims under a lease and ends: jobs and tasks.

    `core.records.leases` writes the columns of the claim.
    """

    __abstract__ = True

    finished_at: Mapped[float | None]
    """Set if and only if the work of the row has ended."""

    claim_token: Mapped[int] = mapped_column(default=0)
    """The fencing token. It increases when a claim begins, and when it ends for any reason."""
    claimed_by: Mapped[str | None]
    lease_expires_at: Mapped[float | None]
    """By the database's clock. None without a claim."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Claims that count towards the cap on crashes."""
