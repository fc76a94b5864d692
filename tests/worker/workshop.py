"""A database, a storage and a broker with jobs in them, and workers to run these."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from core.jobs.broker import FOLDER_SCHEME, Broker
from core.jobs.state import FINAL, JobStatus
from core.records import claims, engines, events, files, jobs, pauses, workers
from core.records.claims import Claim
from core.records.database import Database
from core.records.jobs import NewJob
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import Job, JobEvent, RegisteredEngine, TunedModel
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.engine_protocol import EngineReport
from core.spec.job import JobSpec
from core.spec.strategy import LoraSpec
from core.spec.training import TrainingSpec
from core.storage.blobs import BlobStore
from core.storage.open import open_store
from core.tasks.kinds import JOB, Work
from worker.context import Worker
from worker.process.app import device_work
from worker.settings import WorkerSettings

# Other processes share the cores of a test machine: threads that wait must sleep. The
# forkserver of this process, which the first training starts, inherits it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).parents[2]
TINY = BaseModelSpec(id="tunesmith/tiny", source=str(ROOT / "core" / "models" / "tiny"))

ROW = '{"messages": [{"role": "user", "content": "%d"}, {"role": "assistant", "content": "a b"}]}\n'

ENDLESS_EPOCHS = 100
"""Far more than any test waits for."""

BEAT_SECONDS = 0.5
TIMEOUT_SECONDS = 200.0  # far more than needed; machines may be busy


@dataclass(frozen=True)
class Workshop:
    """What API and workers share, in one temporary folder. Leases are short."""

    folder: Path
    database_url: str
    broker_url: str
    database: Database
    store: BlobStore
    storage_url: str | None = None

    def settings(self, worker_id: str = "worker-here") -> WorkerSettings:
        return WorkerSettings(
            database_url=self.database_url,
            broker_url=self.broker_url,
            storage_folder=None if self.storage_url else self.folder / "storage",
            storage_url=self.storage_url,
            work_folder=self.folder / "work",
            worker_id=worker_id,
            beat_seconds=BEAT_SECONDS,
            check_seconds=0.1,
            threads=2,
        )

    def submit(
        self,
        *,
        epochs: int = 1,
        rows: int = 8,
        content: str | None = None,
        parent: TunedModel | None = None,
    ) -> str:
        """Create a job as the API does, without telling the broker; return its id."""
        spec = JobSpec(
            base=TINY,
            strategy=LoraSpec(rank=2),
            training=TrainingSpec(epochs=epochs, batch_size=2, max_length=64),
            parent=parent and BundleRef(key=parent.bundle_key, sha256=parent.bundle_sha256),
            seed=1,
        )
        file_id = self.upload(content or "".join(ROW % number for number in range(rows)))
        return self.create(spec, file_id, parent.id if parent else "tiny")

    def upload(self, content: str) -> str:
        """Put a training file into storage and database; return its id."""
        file_id, key = files.new_file_key()
        blob = self.store.write(key, [content.encode()])
        with self.database.writing() as session:
            ensure_project(session)
            files.add_file(
                session,
                file_id=file_id,
                project_id=DEFAULT_PROJECT,
                filename="train.jsonl",
                purpose="fine-tune",
                bytes=blob.bytes,
                sha256=blob.sha256,
                blob_key=key,
                report=None,
            )
        return file_id

    def create(self, spec: JobSpec, file_id: str, requested_model: str = "tiny") -> str:
        """Put a job into the database that the API would have looked at more closely."""
        new = NewJob(
            project_id=DEFAULT_PROJECT,
            requested_model=requested_model,
            suffix="test",
            training_file=file_id,
            validation_file=None,
            spec=spec,
            metadata=None,
        )
        with self.database.writing() as session:
            return jobs.create_job(session, new).id

    def engine_at(self, url: str) -> None:
        """Let the worker find an engine there until it is forgotten, as if it went on beating."""
        with self.database.writing() as session:
            engines.engine_seen(session, EngineReport(url=url))
            session.get_one(RegisteredEngine, url).seen_at += TIMEOUT_SECONDS

    def forget_engines(self) -> None:
        with self.database.writing() as session:
            engines.forget_dead_engines(session, after_seconds=-TIMEOUT_SECONDS)

    def wake(self, job_id: str) -> None:
        Broker(self.broker_url).wake(Work(JOB, job_id))

    def job(self, job_id: str) -> Job:
        with self.database.reading() as session:
            return get_owned(session, Job, DEFAULT_PROJECT, job_id)

    def cancel(self, job_id: str) -> None:
        with self.database.writing() as session:
            jobs.cancel_job(session, DEFAULT_PROJECT, job_id)

    def end_badly(self, job_id: str) -> None:
        with self.database.writing() as session:
            jobs.advance(session, job_id, JobStatus.FAILED, message="The job failed.")

    def pause(self, job_id: str) -> None:
        with self.database.writing() as session:
            pauses.pause_job(session, DEFAULT_PROJECT, job_id)

    def resume(self, job_id: str) -> None:
        with self.database.writing() as session:
            pauses.resume_job(session, DEFAULT_PROJECT, job_id)

    def events(self, job_id: str) -> Sequence[JobEvent]:
        with self.database.reading() as session:
            return events.events_since(session, job_id, 0)

    def messages(self, job_id: str) -> list[str]:
        return [event.message for event in self.events(job_id)]

    def claim(self, worker_id: str = "worker-here") -> Claim:
        with self.database.writing() as session:
            claim = claims.claim_next(session, worker_id, lease_seconds=3 * BEAT_SECONDS)
        assert claim is not None
        return claim

    def wait_for_steps(self, job_id: str) -> None:
        """Return once a child trains."""
        wait_until(lambda: self.job(job_id).step >= 1, f"{job_id} trains")

    def wait_for_end(self, job_id: str) -> Job:
        wait_until(lambda: self.job(job_id).status in FINAL, f"{job_id} ends")
        return self.job(job_id)

    def living_workers(self) -> list[str]:
        with self.database.reading() as session:
            return [worker.id for worker in workers.living_workers(session, 30)]

    def blobs(self, prefix: str) -> set[str]:
        storage = self.folder / "storage"
        found = (storage / prefix).rglob("*")
        return {str(path.relative_to(storage)) for path in found if path.is_file()}


def make_workshop(
    folder: Path,
    database_url: str,
    broker_url: str | None = None,
    storage_url: str | None = None,
) -> Workshop:
    return Workshop(
        folder=folder,
        database_url=database_url,
        broker_url=broker_url or f"{FOLDER_SCHEME}{folder / 'broker'}",
        database=Database(database_url),
        store=open_store(None if storage_url else folder / "storage", storage_url),
        storage_url=storage_url,
    )


@contextmanager
def worker_here(workshop: Workshop) -> Iterator[Worker]:
    """Run what waits, in a thread of this process, until the end of the block."""
    worker = Worker(workshop.settings(), workshop.database, workshop.store, threading.Event())
    thread = threading.Thread(target=device_work(worker))
    thread.start()
    try:
        yield worker
    finally:
        worker.stopping.set()
        thread.join()


@contextmanager
def worker_process(
    workshop: Workshop, worker_id: str, module: str = "worker"
) -> Iterator[subprocess.Popen[bytes]]:
    """A real `python -m worker`, warm, or another module that is a worker."""
    settings = workshop.settings(worker_id)
    environment = {
        f"TUNESMITH_{name.upper()}": str(value)
        for name, value in settings.model_dump(exclude_none=True).items()
    }
    log = workshop.folder / f"{worker_id}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(
            lambda: worker_id in workshop.living_workers() or process.poll() is not None,
            f"{worker_id} is warm",
        )
        assert process.poll() is None, log.read_text()
        yield process
    except BaseException:
        print(f"{worker_id} wrote:\n{log.read_text()}")
        raise
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()


def training_child(worker_pid: int) -> psutil.Process:
    """The child that trains: the only descendant of a worker that leads a session."""
    for process in psutil.Process(worker_pid).children(recursive=True):
        if os.getsid(process.pid) == process.pid:
            return process
    raise AssertionError(f"process {worker_pid} has no training child")


def freeze(workshop: Workshop, worker: subprocess.Popen[bytes]) -> None:
    """Stop a worker between two writes: stopped inside one it would keep SQLite's lock."""
    with workshop.database.writing() as session:
        session.connection()  # a session takes the lock with its first statement
        worker.send_signal(signal.SIGSTOP)
        process = psutil.Process(worker.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "the worker is frozen")


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = TIMEOUT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.02)
