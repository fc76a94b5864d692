"""The Celery application of a worker: a message wakes it, the database determines its work."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import assert_never

from celery import Celery
from celery.signals import worker_shutting_down

from core.jobs.broker import celery_app
from core.jobs.messages import WORK_TASK
from core.tasks.kinds import Queue
from worker.context import Worker
from worker.process.calibration import Calibrator
from worker.tasks.desk import TaskDesk, threads_of
from worker.training.attempt import train_next_job

WORKER_OPTIONS = (
    "--pool=threads",  # the processes of a prefork pool cannot start children
    "--without-gossip",
    "--without-mingle",
    "--without-heartbeat",
    "--loglevel=INFO",
)


def device_work(worker: Worker, calibrator: Calibrator | None = None) -> Callable[[], None]:
    """Return what a `device` worker does when it is woken: all waiting work, one after another.

    Jobs and tasks take turns, so that neither waits for a long queue of the other. `calibrator`
    does not measure meanwhile.
    """
    desk = TaskDesk(worker, Queue.DEVICE)

    def work() -> None:
        with nullcontext() if calibrator is None else calibrator.working():
            has_worked = True
            while has_worked and not worker.stopping.is_set():
                has_run_task = desk.run_next()
                has_worked = train_next_job(worker) or has_run_task

    return work


def light_work(worker: Worker) -> Callable[[], None]:
    """Return what each thread of a `light` worker does when it is woken."""
    return TaskDesk(worker, Queue.LIGHT).run_waiting


def build_app(worker: Worker, work: Callable[[], None]) -> Celery:
    """Return the Celery application; its only task calls `work`.

    A worker does the oldest waiting work, which may not be what the message names. So a duplicate
    or late message does no harm.
    """
    app = celery_app(worker.settings.broker_url)

    @app.task(name=WORK_TASK)  # type: ignore[untyped-decorator]
    def _work(kind: str, work_id: str) -> None:
        work()

    return app


def serve(worker: Worker, queue: Queue, calibrator: Calibrator | None = None) -> None:
    """Process messages until SIGTERM or SIGINT; running work is then stopped and released."""
    match queue:
        case Queue.DEVICE:
            work, threads = device_work(worker, calibrator), 1
        case Queue.LIGHT:
            work, threads = light_work(worker), threads_of(queue)
        case _:
            assert_never(queue)
    app = build_app(worker, work)

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def stop(**_: object) -> None:
        worker.stopping.set()

    name = f"--hostname={worker.settings.worker_id}@%h"
    concurrency = f"--concurrency={threads}"
    app.worker_main(["worker", name, f"--queues={queue}", concurrency, *WORKER_OPTIONS])
