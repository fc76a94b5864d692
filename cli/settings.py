"""What the `tunesmith` command reads from the environment, and what it gives its processes."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from core.jobs.broker import FOLDER_SCHEME

DEFAULT_DATA_FOLDER = Path(".data")

ENGINE_TUNABLES = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.mmap_threshold=33554432",
        "glibc.malloc.trim_threshold=268435456",
    )
)
"""Of glibc's allocator: large pages on request, and up to 256 MiB kept for the next step."""


@dataclass(frozen=True)
class EmbeddedService:
    """Where one embedded service keeps its data, and on which addresses it listens."""

    data_folder: Path
    host: str
    port: int
    engine_port: int
    engine_key: str = field(default_factory=secrets.token_urlsafe, repr=False)
    """What API and engine send each other, unless the environment has a key for them."""

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.data_folder / 'tunesmith.db'}"

    @property
    def log_folder(self) -> Path:
        return self.data_folder / "logs"

    @property
    def lock_file(self) -> Path:
        return self.data_folder / "lock"


def child_environment(service: EmbeddedService) -> dict[str, str]:
    """The environment of every process of the service: ours, and where things are.

    Settings that `up` does not decide (the API key, the catalog file) pass through. Training
    and engine get half of the cores each; their waiting threads sleep and do not spin
    (docs/operations.md).
    """
    half_of_the_cores = str(max(1, len(os.sched_getaffinity(0)) // 2))
    data_folder = service.data_folder
    return {
        "TUNESMITH_THREADS": half_of_the_cores,
        "TUNESMITH_ENGINE_THREADS": half_of_the_cores,
        **os.environ,
        "TUNESMITH_DATABASE_URL": service.database_url,
        "TUNESMITH_BROKER_URL": f"{FOLDER_SCHEME}{data_folder / 'broker'}",
        "TUNESMITH_STORAGE_FOLDER": str(data_folder / "storage"),
        "TUNESMITH_STORAGE_URL": "",
        "TUNESMITH_WORK_FOLDER": str(data_folder / "work"),
        "TUNESMITH_PRECISION_FOLDER": str(data_folder / "precision"),
        "TUNESMITH_HOST": service.host,
        "TUNESMITH_PORT": str(service.port),
        "TUNESMITH_ENGINE_KEY": os.environ.get("TUNESMITH_ENGINE_KEY") or service.engine_key,
        "TUNESMITH_ENGINE_API_URL": service.url,
        "TUNESMITH_ENGINE_URL": f"http://127.0.0.1:{service.engine_port}",
        "TUNESMITH_ENGINE_HOST": "127.0.0.1",
        "TUNESMITH_ENGINE_PORT": str(service.engine_port),
        "TUNESMITH_ENGINE_CACHE_FOLDER": str(data_folder / "engine"),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }


def worker_environment(service: EmbeddedService, worker_id: str) -> dict[str, str]:
    """A worker's id is chosen here, so that its jobs can be taken back when it dies."""
    return {**child_environment(service), "TUNESMITH_WORKER_ID": worker_id}


def engine_environment(service: EmbeddedService) -> dict[str, str]:
    """The engine keeps the memory of its steps, on large pages: a tenth more tokens a second."""
    tunables = os.environ.get("GLIBC_TUNABLES", ENGINE_TUNABLES)
    return {**child_environment(service), "GLIBC_TUNABLES": tunables}
