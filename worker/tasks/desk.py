"""Runs the tasks of one queue: claim → attempt → one fenced write that ends the attempt."""

import importlib
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session

from core.errors import StaleClaim, TunesmithError, Unavailable
from core.records import tasks
from core.records.tasks import TaskClaim
from core.spec.base import Spec
from core.storage.blobs import STORAGE_UNAVAILABLE
from core.tasks.failure import TaskFailure
from core.tasks.kinds import KINDS, Queue, kinds_of
from worker.context import Worker
from worker.coroutines import Interrupted
from worker.lease import Lease
from worker.outages.commit import commit
from worker.outages.retrying_store import RetryingStore
from worker.tasks.attempt import TASK_FOLDER, Attempt

logger = logging.getLogger(__name__)

HUB_UNAVAILABLE = "hub_unavailable"
"""The code of an Unavailable for the Hugging Face hub."""

_OUTAGES = (STORAGE_UNAVAILABLE, HUB_UNAVAILABLE)
"""Codes after which a task is retried."""

Ending = Callable[[Session], None]
"""The write that ends an attempt, and perhaps the task."""


class TaskDesk:
    """Takes tasks from one queue, at most `at_once` of each kind; threads may share it."""

    def __init__(self, worker: Worker, queue: Queue) -> None:
        self._worker = worker
        self._queue = queue
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run_waiting(self) -> None:
        """Run one task after another until no waiting task may run now."""
        while not self._worker.stopping.is_set() and self.run_next():
            pass

    def run_next(self) -> bool:
        """Run the oldest waiting task that may run now; return whether there was one."""
        claim = self._claim()
        if claim is None:
            return False
        logger.info("Claimed %s with token %d.", claim.id, claim.token)
        try:
            run_attempt(self._worker, claim)
        finally:
            with self._lock:
                self._running[claim.kind] -= 1
        return True

    def _claim(self) -> TaskClaim | None:
        worker = self._worker
        with self._lock:
            kinds = [
                kind for kind in kinds_of(self._queue) if self._running[kind] < KINDS[kind].at_once
            ]
            if not kinds:
                return None
            claim = commit(
                worker.database,
                lambda session: tasks.claim_next(session, worker.settings.worker_id, kinds),
            )
            if claim is not None:
                self._running[claim.kind] += 1
            return claim


def threads_of(queue: Queue) -> int:
    """Return the number of threads with which no kind of the queue waits for another."""
    return sum(KINDS[kind].at_once for kind in kinds_of(queue))


def run_attempt(worker: Worker, claim: TaskClaim) -> None:
    """Run the claimed task. The claim has ended afterwards, also after an error."""
    settings, kind = worker.settings, KINDS[claim.kind]
    folder = (settings.work_folder / TASK_FOLDER / f"{claim.id}.{claim.token}").absolute()
    lease = Lease(
        worker.database,
        claim,
        lease_seconds=kind.lease_seconds,
        check_seconds=settings.check_seconds,
        renew_seconds=kind.limit_seconds + kind.lease_seconds,
    )
    stop_at = time.monotonic() + kind.limit_seconds

    def should_stop() -> bool:
        return worker.stopping.is_set() or lease.lost.is_set() or time.monotonic() > stop_at

    store = RetryingStore(worker.store, should_stop)
    attempt = Attempt(claim, settings, worker.database, store, folder, should_stop)
    try:
        with lease:
            commit(worker.database, _ending(worker, attempt, lease))
    except StaleClaim:
        logger.info("The claim on %s ended before its result; nothing was written.", claim.id)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ending(worker: Worker, attempt: Attempt, lease: Lease) -> Ending:
    """Run the kind's runner; return the write that ends the attempt. Raises StaleClaim."""
    claim = attempt.claim
    try:
        result = _run(attempt)
        return lambda session: tasks.succeed(session, claim, result)
    except StaleClaim:
        raise
    except Interrupted:
        return _interrupted(worker, claim, lease)
    except TunesmithError as error:
        return _failed(worker, claim, error)
    except Exception as error:
        logger.exception("%s crashed.", claim.id)
        crash = TaskFailure(code="task_crashed", message=f"{type(error).__name__}: {error}")
        return partial(tasks.retry, claim=claim, failure=crash)


def _failed(worker: Worker, claim: TaskClaim, error: TunesmithError) -> Ending:
    """End the task, because a retry would fail in the same way; retry it after an outage."""
    if isinstance(error, Unavailable) and worker.stopping.is_set():
        return partial(tasks.release, claim=claim)
    logger.info("%s failed: %s", claim.id, error.message)
    end = tasks.retry if error.code in _OUTAGES else tasks.fail
    return partial(end, claim=claim, failure=TaskFailure.of(error))


def _run(attempt: Attempt) -> Spec:
    attempt.folder.mkdir(parents=True)
    runner = importlib.import_module(KINDS[attempt.claim.kind].runner)
    result: Spec = runner.run(attempt)
    return result


def _interrupted(worker: Worker, claim: TaskClaim, lease: Lease) -> Ending:
    if lease.lost.is_set():
        raise StaleClaim(f"{claim.id} was deleted or given to another worker.")
    if worker.stopping.is_set():
        return partial(tasks.release, claim=claim)
    seconds = KINDS[claim.kind].limit_seconds
    message = f"The task did not end within {seconds:.0f} s."
    return partial(
        tasks.fail, claim=claim, failure=TaskFailure(code="task_timed_out", message=message)
    )
