"""The settings of the `tunesmith` command, and the environment of its processes."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from core.cores import usable_cores
from core.jobs.broker import FOLDER_SCHEME

DEFAULT_DATA_FOLDER = Path(".data")


def _tunables(**settings: int) -> str:
    return ":".join(f"glibc.malloc.{name}={value}" for name, value in settings.items())


ENGINE_TUNABLES = _tunables(hugetlb=1, mmap_threshold=32 << 20, trim_threshold=256 << 20)
"""Settings of glibc's allocator: use huge pages, and keep up to 256 MiB for the next step."""

TRAINING_TUNABLES = _tunables(
    hugetlb=1, mmap_threshold=4 << 30, trim_threshold=8 << 30, top_pad=256 << 20
)
"""The same for training, whose steps need far more: keep all of it until the run ends."""

TRAINING_SPINS = "30000"
"""Turns for which a waiting thread of a run spins before it sleeps, about a millisecond.

The waits between the operations of a step are shorter, and waking takes long on virtual machines.
Where threads share a core, they hardly spin (worker/child/cores.py).
"""


@dataclass(frozen=True)
class EmbeddedService:
    """The data folder and addresses of one embedded service."""

    data_folder: Path
    host: str
    port: int
    engine_port: int
    engine_key: str = field(default_factory=secrets.token_urlsafe, repr=False)
    """The key between API and engine, unless the environment sets one."""

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
    """Return the environment of a process of the service.

    Settings that `up` does not set (the API key, the catalog file) are inherited. The
    engine has threads for half of the cores, and a run uses all of them or, while the engine is
    busy, half. Waiting threads sleep instead of spinning, except those of a run
    (`training_environment`).
    """
    half_of_the_cores = str(max(1, usable_cores() // 2))
    data_folder = service.data_folder
    return {
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
        "TUNESMITH_ENGINE_BUSY_FILE": str(data_folder / "engine-is-busy"),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }


def training_environment(service: EmbeddedService, worker_id: str) -> dict[str, str]:
    """Return the environment of the worker that trains, for its children."""
    spins = {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": TRAINING_SPINS}
    return {
        "GLIBC_TUNABLES": TRAINING_TUNABLES,
        **spins,
        **worker_environment(service, worker_id),
    }


def worker_environment(service: EmbeddedService, worker_id: str) -> dict[str, str]:
    """Return the environment of a worker with a known id, so that its jobs can be requeued."""
    return {**child_environment(service), "TUNESMITH_WORKER_ID": worker_id}


def engine_environment(service: EmbeddedService) -> dict[str, str]:
    """Return the engine's environment; its allocator settings give 10 % more tokens per second."""
    return {"GLIBC_TUNABLES": ENGINE_TUNABLES, **child_environment(service)}
