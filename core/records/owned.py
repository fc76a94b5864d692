"""Finding rows by their owner. This is the only file that compares projects.

tests/architecture/test_ownership.py checks that.
"""

from typing import Literal, TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.interfaces import ORMOption

from core.errors import NotFound
from core.records.tables import (
    DistillationRow,
    JobMask,
    JobMetadata,
    Owned,
    RememberedRequest,
    ResponseEvents,
    StoredCompletionMetadata,
)
from core.spec.ids import ProjectId
from core.spec.nearest import did_you_mean

MOST_SEARCHED = 100
"""The latest rows that are searched for an id like a wrong one."""
LEAST_SIMILARITY = 0.85
"""Two random ids of the same kind are far below."""

Row = TypeVar("Row", bound=Owned)

Lock = Literal["read", "write"]
"""Until the transaction ends, `read` prevents changes of the row, and `write` also other locks."""


def owned_by(
    table: type[Owned]
    | type[JobMetadata]
    | type[JobMask]
    | type[DistillationRow]
    | type[RememberedRequest]
    | type[ResponseEvents]
    | type[StoredCompletionMetadata],
    project: ProjectId,
) -> ColumnElement[bool]:
    """Return the condition that a row of `table` belongs to `project`."""
    return table.project_id == project


def find_owned(
    session: Session,
    table: type[Row],
    project: ProjectId,
    id_: str,
    *,
    lock: Lock | None = None,
    load: tuple[ORMOption, ...] = (),
) -> Row | None:
    """Return the row with this id; None if `project` has none.

    With `lock` the row is read again. `load` names deferred columns to read with it.
    """
    query = select(table).where(table.id == id_, owned_by(table, project)).options(*load)
    if lock is not None:
        query = query.with_for_update(read=lock == "read")
        query = query.execution_options(populate_existing=True)
    return session.scalars(query).one_or_none()


def get_owned(
    session: Session,
    table: type[Row],
    project: ProjectId,
    id_: str,
    *,
    lock: Lock | None = None,
    load: tuple[ORMOption, ...] = (),
    param: str | None = None,
) -> Row:
    """Return the row with this id; NotFound if `project` has none.

    The error names the request field `param`, by default the one that usually holds such an id.
    """
    row = find_owned(session, table, project, id_, lock=lock, load=load)
    if row is None:
        raise missing(table, id_, param=param, hint=similar_id(session, table, project, id_))
    return row


def similar_id(session: Session, table: type[Owned], project: ProjectId, id_: str) -> str:
    """Return the hint about the project's row whose id is like a wrong one; "" if none is."""
    latest = select(table.id).where(owned_by(table, project)).order_by(table.created_at.desc())
    ids = session.scalars(latest.limit(MOST_SEARCHED)).all()
    return did_you_mean(id_, ids, cutoff=LEAST_SIMILARITY)


def missing(table: type[Owned], id_: str, *, param: str | None = None, hint: str = "") -> NotFound:
    """Return the error for an id of which the project has no row."""
    return NotFound(
        f"No {table.noun} with id {id_!r}.{hint}",
        param=param or table.id_param,
        code=table.missing_code,
    )
