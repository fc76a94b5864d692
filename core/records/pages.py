"""Keyset pages: "the next rows after this one", which neither skips nor repeats a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.records.tables import File, Job, TunedModel

Row = TypeVar("Row", File, Job, TunedModel)
Order = Literal["asc", "desc"]


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows of a list, and whether more follow."""

    rows: Sequence[Row]
    has_more: bool


def page(
    session: Session,
    query: Select[Row],
    table: type[Row],
    *,
    project_id: str,
    after: str | None,
    limit: int,
    order: Order = "desc",
) -> Page[Row]:
    """Return up to `limit` rows of `query` that follow the row `after` (by created_at, id).

    NotFound when `after` is no row of this project.
    """
    query = query.where(table.project_id == project_id)
    key = tuple_(table.created_at, table.id)
    if after is not None:
        anchor = session.get(table, after)
        if anchor is None or anchor.project_id != project_id:
            raise NotFound(f"No object {after!r} to list after.", param="after")
        position = (anchor.created_at, anchor.id)
        query = query.where(key > position if order == "asc" else key < position)
    columns = (table.created_at, table.id)
    query = query.order_by(*(c.asc() if order == "asc" else c.desc() for c in columns))
    rows = session.scalars(query.limit(limit + 1)).all()
    return Page(rows=rows[:limit], has_more=len(rows) > limit)
