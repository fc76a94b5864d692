"""Which bases have their files on the machines of the workers.

The API declares the bases of its catalog. Each worker reports what its machine has of them, before
its own row and with every heartbeat.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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
from core.spec.base_files import BaseFiles, BaseState
from core.spec.base_model import BaseModelSpec

_BEST: Sequence[BaseState] = ("present", "downloadable", "missing")


@dataclass(frozen=True)
class BaseKey:
    """The identity of a base's files; `revision` is empty for the default branch."""

    source: str
    revision: str

    @classmethod
    def of(cls, base: BaseModelSpec) -> "BaseKey":
        return cls(base.source, base.revision or "")


def declare_bases(session: Session, bases: Iterable[BaseModelSpec]) -> None:
    """Let the workers look for the files of these bases. Those of other APIs stay declared."""
    known = {BaseKey.of(base) for base in declared_bases(session)}
    for base in bases:
        key = BaseKey.of(base)
        if key not in known:
            known.add(key)
            session.add(CatalogBase(source=key.source, revision=key.revision, name=base.id))
    session.flush()


def declared_bases(session: Session) -> Sequence[BaseModelSpec]:
    """Return the declared bases, with their sources as declared."""
    rows = session.scalars(select(CatalogBase).order_by(CatalogBase.name))
    return [
        BaseModelSpec.model_construct(
            id=row.name, source=row.source, revision=row.revision or None, quantization=None
        )
        for row in rows
    ]


def reported_bases(session: Session, worker_id: str) -> dict[BaseKey, BaseFiles]:
    """Return what one worker has reported."""
    rows = session.scalars(select(WorkerBase).where(WorkerBase.worker_id == worker_id))
    return {_key(row): _files(row) for row in rows}


def report_bases(session: Session, worker_id: str, found: Mapping[BaseKey, BaseFiles]) -> None:
    """Replace what the worker has reported."""
    session.execute(delete(WorkerBase).where(WorkerBase.worker_id == worker_id))
    rows = [
        {"worker_id": worker_id, "source": key.source, "revision": key.revision}
        | files.model_dump()
        for key, files in found.items()
    ]
    if rows:
        session.execute(insert(WorkerBase), rows)


def found_bases(session: Session, *conditions: ColumnElement[bool]) -> dict[BaseKey, BaseFiles]:
    """Return the best that a living worker has of each base; nothing for a base nobody looks for.

    `conditions` may select the workers.
    """
    rows = session.scalars(
        select(WorkerBase)
        .join(Worker, Worker.id == WorkerBase.worker_id)
        .where(Worker.seen_at > database_now() - SEEN_WITHIN_SECONDS, *conditions)
    ).all()
    best: dict[BaseKey, BaseFiles] = {}
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


def _key(row: WorkerBase) -> BaseKey:
    return BaseKey(row.source, row.revision)


def _files(row: WorkerBase) -> BaseFiles:
    return BaseFiles.model_validate(
        {"state": row.state, "bytes": row.bytes, "license": row.license}
    )
