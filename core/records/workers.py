"""The living workers."""

from collections.abc import Sequence

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from core.records.database import database_now
from core.records.tables import Worker, WorkerBase
from core.spec.calibration import CALIBRATION_VERSION, Calibration
from core.tasks.kinds import Queue

SEEN_WITHIN_SECONDS = 30.0
"""How long a worker without a heartbeat counts as alive for the API."""


def worker_seen(
    session: Session,
    worker_id: str,
    device: str,
    queue: Queue,
    calibration: Calibration | None = None,
) -> None:
    """Update or insert the worker's row. None: its device is not measured (yet)."""
    measured = None if calibration is None else calibration.model_dump(mode="json")
    refreshed = session.execute(
        update(Worker)
        .where(Worker.id == worker_id)
        .values(seen_at=database_now(), calibration=measured)
        .returning(Worker.id)
        .execution_options(synchronize_session=False)
    ).all()
    if not refreshed:
        values = {"id": worker_id, "seen_at": database_now(), "device": device, "queue": queue}
        session.execute(insert(Worker).values(values | {"calibration": measured}))


def worker_gone(session: Session, worker_id: str) -> None:
    session.execute(delete(Worker).where(Worker.id == worker_id))
    session.execute(delete(WorkerBase).where(WorkerBase.worker_id == worker_id))


def living_workers(session: Session, within_seconds: float) -> Sequence[Worker]:
    """Return workers seen within the last `within_seconds`."""
    return session.scalars(
        select(Worker).where(Worker.seen_at > database_now() - within_seconds)
    ).all()


def calibrations(session: Session) -> dict[str, Calibration]:
    """Return the measured devices of the living workers, by the worker's id, sorted by it.

    Measurements of another version of the service are left out.
    """
    rows = [worker for worker in living_workers(session, SEEN_WITHIN_SECONDS) if worker.calibration]
    return {
        worker.id: Calibration.model_validate(worker.calibration)
        for worker in sorted(rows, key=lambda worker: worker.id)
        if (worker.calibration or {}).get("version") == CALIBRATION_VERSION
    }


def has_unmeasured_worker(session: Session) -> bool:
    """Return whether a living worker for jobs has not measured its device (yet)."""
    measured = calibrations(session)
    return any(
        worker.queue == Queue.DEVICE and worker.id not in measured
        for worker in living_workers(session, SEEN_WITHIN_SECONDS)
    )


def forget_dead_workers(session: Session, after_seconds: float) -> None:
    """Delete workers last seen more than `after_seconds` ago."""
    session.execute(delete(Worker).where(Worker.seen_at < database_now() - after_seconds))
    session.execute(delete(WorkerBase).where(WorkerBase.worker_id.not_in(select(Worker.id))))
