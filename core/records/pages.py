"""Pages by keyset ("the next rows after this one"), which neither skip nor repeat a row."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from core.errors import NotFound
from core.records.owned import find_owned, owned_by
from core.records.tables import Owned, Table
from core.spec.ids import ProjectId

Row = TypeVar("Row", bound=Table)
OwnedRow = TypeVar("OwnedRow", bound=Owned)
Order = Literal["asc", "desc"]

PAGE_BYTES = 8 << 20
"""A page of large rows ends once it has more; it always has a row."""


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows of a list, and whether more follow."""

    rows: Sequence[Row]
    has_more: bool


def keyset_page(
    session: Session,
    query: Select[Row],
    key: Sequence[InstrumentedAttribute[Any]],
    *,
    after: Sequence[object] | None,
    limit: int,
    order: Order = "desc",
) -> Page[Row]:
    """Return up to `limit` rows of `query`, sorted by the columns `key`, which identify a row.

    `after` is the key of the last row of the previous page.
    """
    if after is not None:
        position = tuple_(*key)
        query = query.where(position > after if order == "asc" else position < after)
    query = query.order_by(*(c.asc() if order == "asc" else c.desc() for c in key))
    rows = session.scalars(query.limit(limit + 1)).all()
    return Page(rows=rows[:limit], has_more=len(rows) > limit)


def page(
    session: Session,
    query: Select[OwnedRow],
    table: type[OwnedRow],
    project: ProjectId,
    *,
    after: str | None,
    limit: int,
    order: Order = "desc",
    time: InstrumentedAttribute[float] | None = None,
) -> Page[OwnedRow]:
    """Return up to `limit` rows of `query` that `project` owns, by (time, id).

    `time` is a column of the table; None: `created_at`. They follow the row with the id `after`.
    NotFound if the project has no such row.
    """
    column = table.created_at if time is None else time
    position = None
    if after is not None:
        anchor = find_owned(session, table, project, after)
        if anchor is None:
            raise NotFound(f"No {table.noun} {after!r} to list after.", param="after")
        position = (getattr(anchor, column.key), anchor.id)
    query = query.where(owned_by(table, project))
    key = (column, table.id)
    return keyset_page(session, query, key, after=position, limit=limit, order=order)


def until_full(rows: Iterable[Row], bytes_of: Callable[[Row], int]) -> Iterator[Row]:
    """Yield rows until a page is full; always one."""
    total = 0
    for row in rows:
        yield row
        total += bytes_of(row)
        if total > PAGE_BYTES:
            return


def within_bytes(page: Page[Row], bytes_of: Callable[[Row], int]) -> Page[Row]:
    """Return a page, which ends early if its rows are large."""
    rows = list(until_full(page.rows, bytes_of))
    return Page(rows, page.has_more or len(rows) < len(page.rows))
