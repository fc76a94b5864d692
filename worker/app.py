"""The Celery side of a worker: a message wakes it, the database tells it what to do."""

from celery import Celery
from celery.signals import worker_shutting_down

from core.jobs.broker import celery_app
from core.jobs.messages import TRAIN_TASK
from worker.train import Worker, train_waiting_jobs

WORKER_OPTIONS = (
    "--pool=threads",  # a prefork pool's processes may not have children of their own
    "--concurrency=1",
    "--without-gossip",
    "--without-mingle",
    "--without-heartbeat",
    "--loglevel=INFO",
)


def build_app(worker: Worker) -> Celery:
    """The Celery application whose only task runs what waits.

    The job that a message names need not be the one that is run: the oldest one is. A
    message that comes twice or too late finds nothing to do.
    """
    app = celery_app(worker.settings.broker_url)

    @app.task(name=TRAIN_TASK)  # type: ignore[untyped-decorator]
    def train(job_id: str) -> None:
        train_waiting_jobs(worker)

    return app


def serve(worker: Worker) -> None:
    """Take messages until SIGTERM or SIGINT; a run under way is stopped and given back."""
    app = build_app(worker)

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def stop(**_: object) -> None:
        worker.stopping.set()

    app.worker_main(["worker", f"--hostname={worker.settings.worker_id}@%h", *WORKER_OPTIONS])
