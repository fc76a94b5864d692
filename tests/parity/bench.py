"""Jobs, and engines that are asked about them, side by side in one process."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from core.artifacts.archive import unpack
from core.parity.asking import Candidate
from core.spec.parity import NumberFormat, Parity
from core.storage.blobs import BlobStore
from core.storage.open import open_store
from tests.parity.faults import Change, tampered
from tests.parity.jobs import Job, train_job
from tests.worker.finished import Finished
from tests.worker.serving import Service, serving
from worker.engine.settings import EngineSettings
from worker.engine_client.find import EngineAddress
from worker.parity.check import ParityCheck


@dataclass
class Bench:
    """Trains each job once, and keeps an engine for each number format."""

    folder: Path
    stack: ExitStack
    done: dict[Job, Finished] = field(default_factory=dict)
    engines: dict[tuple[NumberFormat, NumberFormat], Service] = field(default_factory=dict)
    folders: int = 0

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def store(self) -> BlobStore:
        return open_store(self.storage)

    def finished(self, job: Job) -> Finished:
        if job not in self.done:
            self.done[job] = train_job(job, self._new_folder(), self.store)
        return self.done[job]

    def honest(self, job: Job, served: NumberFormat | None = None) -> Parity:
        """Ask an engine in the job's own format, or in another one."""
        return self._ask(job, self.finished(job).candidate, served or job.precision)

    def planted(self, job: Job, change: Change) -> Parity:
        """Ask about the job's bundle after a change that nobody has told the worker of."""
        candidate = tampered(self.finished(job), self.store, self._new_folder(), change)
        return self._ask(job, candidate, job.precision)

    def pretending(self, job: Job, computed: NumberFormat) -> Parity:
        """Ask an engine that says it computes in the job's format and does in another."""
        return self._ask(job, self.finished(job).candidate, job.precision, computed)

    def bundle(self, job: Job) -> Path:
        """Return the unpacked bundle of a job."""
        folder = self._new_folder()
        folder.mkdir()
        self.store.fetch(self.finished(job).candidate.bundle.key, folder / "bundle.zip")
        unpack(folder / "bundle.zip", folder / "bundle")
        return folder / "bundle"

    def _new_folder(self) -> Path:
        """Return the path of a folder that nobody has made yet."""
        self.folders += 1
        return self.folder / f"work-{self.folders}"

    def _ask(
        self,
        job: Job,
        candidate: Candidate,
        said: NumberFormat,
        computed: NumberFormat | None = None,
    ) -> Parity:
        service = self._engine(said, computed or said)
        address = EngineAddress(str(service.client.base_url))
        check = ParityCheck(lambda candidate: address, lambda: False)
        return check(self.finished(job).reference, candidate)

    def _engine(self, said: NumberFormat, computed: NumberFormat) -> Service:
        if (said, computed) not in self.engines:
            settings = EngineSettings(
                storage_folder=self.storage,
                cache_folder=self.folder / f"cache-{said}-{computed}",
                precision=said,
                kv_cache_mib=32,
                max_bases=4,
            )
            service = self.stack.enter_context(serving(settings, computed=computed))
            self.engines[said, computed] = service
        return self.engines[said, computed]


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    (folder / "storage").mkdir()
    with ExitStack() as stack:
        yield Bench(folder, stack)
