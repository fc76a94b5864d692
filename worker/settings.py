"""Settings of the worker and of housekeeping, from the environment."""

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from core.catalog.settings import HubSettings
from core.records.ids import new_id
from core.sandbox.settings import SandboxSettings
from core.storage.settings import StorageSettings


class WorkerSettings(StorageSettings, HubSettings, SandboxSettings):
    """Read once at start and passed down; every name has the prefix TUNESMITH_."""

    model_config = SettingsConfigDict(
        env_prefix="TUNESMITH_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    database_url: str = Field(description="an SQLAlchemy URL of SQLite or Postgres")
    broker_url: str = Field(description="folder:///path or redis://…")
    work_folder: Path = Field(
        Path("data/work"), description="workspaces of running jobs, on a local disk"
    )
    precision_folder: Path | None = Field(
        None,
        description="the measured costs of 16 bits, on a local disk; may be the engine's folder; "
        "None: a folder in the work folder",
    )
    worker_id: str = Field(
        default_factory=lambda: new_id("worker"), description="new at every start of the process"
    )
    beat_seconds: float = Field(
        10, gt=0, description="between two heartbeats; a lease lasts three times as long"
    )
    check_seconds: float = Field(1, gt=0, description="how soon a cancelled job is noticed")
    threads: int | None = Field(
        None,
        ge=1,
        description="the most CPU threads of a training run; None: one per usable core",
        validation_alias=AliasChoices("TUNESMITH_THREADS", "OMP_NUM_THREADS"),
    )

    llama_cpp: Path | None = Field(
        None,
        description="the folder of llama.cpp's converters, vendor/llama.cpp in the sources of "
        "llama-cpp-python; without it no GGUF files are written",
    )

    calibrate_after_seconds: float = Field(
        15,
        ge=0,
        description="how long a worker is idle before it measures its device, once per machine",
    )

    engine_busy_file: Path | None = Field(
        None,
        description="that of the engine of this machine; while the engine computes, a run "
        "leaves it half of the cores, unless `threads` is set",
    )

    verdict_seconds: float = Field(
        120,
        ge=0,
        le=86_400,
        description="the longest time in which base and tuned model answer held-out rows and fixed "
        "prompts at the end of a job, and are scored; 0: they are not asked",
    )

    engine_key: SecretStr | None = Field(None, description="the TUNESMITH_ENGINE_KEY of the engine")
    endpoints_file: Path | None = Field(
        None,
        description="external endpoints that evals and distillations may ask; TOML, the same as "
        "the API's",
    )

    @property
    def measured_in(self) -> Path:
        """The folder of the measured costs of 16 bits."""
        return self.precision_folder or self.work_folder / "precision"

    @property
    def lease_seconds(self) -> float:
        return 3 * self.beat_seconds
