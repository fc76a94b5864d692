"""Which bases have their files on the machines of the workers.

The API declares the bases of its catalog. Each worker reports what its machine has of them, before
its own row and with every heartbeat.
"""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import (
    ColumnElement,
    SQLColumnExpression,
    and_,
    delete,
    exists,
    func,
    insert,
    select,
)
from sqlalchemy.orm import Session

from core.records.database import database_now
from core.records.tables import CatalogBase, Job, Worker, WorkerBase
from core.records.workers import SEEN_WITHIN_SECONDS
from core.spec.base_files import BaseFiles, BaseSource, BaseState, NamedSource
from core.spec.base_model import BaseModelSpec

_BEST: Sequence[BaseState] = ("present", "downloadable", "missing")


def declare_bases(session: Session, bases: Iterable[BaseModelSpec]) -> None:
    """Let the workers look for the files of these bases. Those of other APIs stay declared."""
    known = {each.files for each in declared_bases(session)}
    for base in bases:
        files = BaseSource.of(base)
        if files not in known:
            known.add(files)
            session.add(CatalogBase(source=files.source, revision=files.revision, name=base.id))
    session.flush()


def declared_bases(session: Session) -> Sequence[NamedSource]:
    """Return the declared bases."""
    rows = session.scalars(select(CatalogBase).order_by(CatalogBase.name))
    return [
        NamedSource(id=row.name, files=BaseSource(source=row.source, revision=row.revision))
        for row in rows
    ]


def reported_bases(session: Session, worker_id: str) -> dict[BaseSource, BaseFiles]:
    """Return what one worker has reported."""
    rows = session.scalars(select(WorkerBase).where(WorkerBase.worker_id == worker_id))
    return {_key(row): _files(row) for row in rows}


def report_bases(session: Session, worker_id: str, found: Mapping[BaseSource, BaseFiles]) -> None:
    """Replace what the worker has reported."""
    session.execute(delete(WorkerBase).where(WorkerBase.worker_id == worker_id))
    rows = [
        {"worker_id": worker_id, "source": key.source, "revision": key.revision}
        | files.model_dump()
        for key, files in found.items()
    ]
    if rows:
        session.execute(insert(WorkerBase), rows)


def found_bases(session: Session, *conditions: ColumnElement[bool]) -> dict[BaseSource, BaseFiles]:
    """Return the best that a living worker has of each base; nothing for a base nobody looks for.

    `conditions` may select the workers.
    """
    rows = session.scalars(
        select(WorkerBase)
        .join(Worker, Worker.id == WorkerBase.worker_id)
        .where(Worker.seen_at > database_now() - SEEN_WITHIN_SECONDS, *conditions)
    ).all()
    best: dict[BaseSource, BaseFiles] = {}
    for row in sorted(rows, key=lambda row: _BEST.index(row.state), reverse=True):
        best[_key(row)] = _files(row)
    return best


def lacks_no_files(worker_id: str) -> ColumnElement[bool]:
    """Return the condition on a job that the worker has not reported its base as absent."""
    return ~exists().where(
        WorkerBase.worker_id == worker_id,
        WorkerBase.state != "present",
        uses(WorkerBase.source, WorkerBase.revision),
    )


def uses(
    source: SQLColumnExpression[str] | str, revision: SQLColumnExpression[str] | str
) -> ColumnElement[bool]:
    """Return the condition on a job that it is trained on these files."""
    return and_(
        Job.spec["base", "source"].as_string() == source,
        func.coalesce(Job.spec["base", "revision"].as_string(), "") == revision,
    )


def _key(row: WorkerBase) -> BaseSource:
    return BaseSource(source=row.source, revision=row.revision)


def _files(row: WorkerBase) -> BaseFiles:
    return BaseFiles.model_validate(
        {"state": row.state, "bytes": row.bytes, "license": row.license}
    )
