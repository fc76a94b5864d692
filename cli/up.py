"""`tunesmith up`: the whole service on one machine, with SQLite, and folders as storage and broker.

It prints one line when the service is ready, and runs until SIGINT or SIGTERM.
"""

import fcntl
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event

import httpx

from cli.process import Process
from cli.settings import (
    EmbeddedService,
    child_environment,
    engine_environment,
    training_environment,
    worker_environment,
)
from core.records import claims, engines, tasks, workers
from core.records.database import Database
from core.records.ids import new_id
from migrations.upgrade import upgrade

logger = logging.getLogger(__name__)

ROUND_SECONDS = 0.1
READY_SECONDS = 180.0
STOP_SECONDS = 25.0
"""A worker needs most of this to stop a run and release its job."""


class UpFailed(Exception):
    """The service cannot start; the message says why and what to do."""


def up(data_folder: Path, host: str, port: int) -> None:
    """Run the service until SIGINT or SIGTERM; UpFailed if it does not start."""
    stopping = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    _refuse_taken_port(host, port)
    service = EmbeddedService(data_folder.absolute(), host, port, _free_port())
    service.log_folder.mkdir(parents=True, exist_ok=True)
    with _lock(service):
        _log_to(service.log_folder / "up.log")
        upgrade(service.database_url)
        supervisor = Supervisor(service)
        supervisor.start()
        try:
            _run(supervisor, service, stopping)
        finally:
            supervisor.stop()


def _run(supervisor: "Supervisor", service: EmbeddedService, stopping: Event) -> None:
    ready_by = time.monotonic() + READY_SECONDS
    while not _answers(service):
        supervisor.require_all()
        if time.monotonic() > ready_by:
            raise UpFailed(
                f"The service was not ready within {READY_SECONDS:.0f} s. "
                f"See the logs in {service.log_folder}."
            )
        if stopping.wait(ROUND_SECONDS):
            return
    where = f"data: {service.data_folder}, logs: {service.log_folder}"
    print(f"Tunesmith is ready on {service.url} ({where})", flush=True)
    while not stopping.wait(ROUND_SECONDS):
        supervisor.restart_dead()


class Supervisor:
    """Keeps the five processes of the service running."""

    def __init__(self, service: EmbeddedService) -> None:
        self._database = Database(service.database_url)
        self._service = service
        self._worker_ids: dict[str, str] = {}
        self._processes = [
            Process(name, module, environment, service.log_folder / f"{name}.log")
            for name, module, environment in (
                ("api", "api", partial(child_environment, service)),
                ("worker", "worker", partial(self._of_worker, "worker", training_environment)),
                (
                    "light-worker",
                    "worker.light",
                    partial(self._of_worker, "light-worker", worker_environment),
                ),
                ("engine", "worker.engine", partial(engine_environment, service)),
                ("housekeeping", "worker.housekeeping", partial(child_environment, service)),
            )
        ]

    def start(self) -> None:
        with self._database.writing() as session:
            engines.forget_dead_engines(session, after_seconds=0)  # of an earlier run
        for process in self._processes:
            process.start()

    def require_all(self) -> None:
        """Raise UpFailed with the end of the log if a process died during startup."""
        for process in self._processes:
            if process.notice_death() is not None:
                raise UpFailed(
                    f"{process.name} failed to start. The end of {process.log_file}:\n"
                    f"{process.log_tail()}"
                )

    def restart_dead(self) -> None:
        """Restart dead processes; requeue the work of a dead worker at once."""
        for process in self._processes:
            status = process.notice_death()
            if status is not None:
                logger.warning(
                    "%s ended with status %d and will be restarted.", process.name, status
                )
                self._requeue_work(process.name)
            process.start_when_due()

    def stop(self) -> None:
        """Stop all processes; kill those that do not stop in time."""
        for process in self._processes:
            process.ask_to_stop()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._processes:
            if process.wait_or_kill(deadline):
                logger.warning("%s did not stop in time and was killed.", process.name)
        self._database.close()

    def _requeue_work(self, process: str) -> None:
        """Requeue the work of a dead worker. Other processes hold none."""
        worker_id = self._worker_ids.pop(process, None)
        if worker_id is None:
            return
        with self._database.writing() as session:
            workers.worker_gone(session, worker_id)
            left: list[str] = [*claims.rescue_expired(session, worker_id=worker_id)]
            left += [work.id for work in tasks.rescue_expired(session, worker_id=worker_id)]
        for work_id in left:
            logger.warning("The worker ended during %s, which is queued again.", work_id)

    def _of_worker(
        self, process: str, environment: Callable[[EmbeddedService, str], dict[str, str]]
    ) -> dict[str, str]:
        worker_id = self._worker_ids[process] = new_id("worker")
        return environment(self._service, worker_id)


@contextmanager
def _lock(service: EmbeddedService) -> Iterator[None]:
    """Lock the data folder; the kernel releases the lock when this process ends."""
    with service.lock_file.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UpFailed(
                f"Another service (process {file.read().strip()}) uses {service.data_folder}. "
                "Stop it, or set another folder with --data-dir."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _answers(service: EmbeddedService) -> bool:
    try:
        return httpx.get(f"{service.url}/readyz", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _refuse_taken_port(host: str, port: int) -> None:
    """Fail early for a port in use, which the API would only log."""
    try:
        socket.create_server((host, port), family=_family(host)).close()
    except OSError as error:
        raise UpFailed(
            f"Cannot listen on {host} port {port}: {error.strerror}. Set another --port or --host."
        ) from error


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _log_to(path: Path) -> None:
    logging.basicConfig(
        filename=path, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
