"""Settings of the engine process, from the environment."""

import socket
from pathlib import Path

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from core.spec.addresses import is_loopback
from core.spec.base_model import BaseModelSpec
from core.spec.training import Precision
from core.storage.settings import StorageSettings


class EngineFaceSettings(StorageSettings):
    """What every kind of engine is told: where it is reached, and where the bundles are.

    Every name has the prefix TUNESMITH_ENGINE_ unless it says otherwise.
    """

    model_config = SettingsConfigDict(
        env_prefix="TUNESMITH_ENGINE_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    host: str = "127.0.0.1"
    port: int = Field(8001, ge=1, le=65535)
    key: SecretStr | None = Field(
        None,
        description="what API and engine must send each other; None: nothing, on a loopback "
        "address only",
    )
    api_url: str = Field("http://127.0.0.1:8000", description="the API to register at")
    url: str | None = Field(
        None,
        pattern=r"^https?://[^/?#@\s]+$",
        description="where the API reaches this engine, without a slash at the end; None: at host "
        "and port, under the name of this machine when the host stands for all its addresses",
    )
    drain_seconds: float = Field(
        30, ge=0, description="for the answers under way, once the engine is told to end"
    )
    cache_folder: Path = Field(description="unpacked adapter bundles, on a disk of this machine")

    @property
    def reached_at(self) -> str:
        """Where the API reaches this engine."""
        if self.url is not None:
            return self.url
        host = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @model_validator(mode="after")
    def _refuse_an_open_engine(self) -> "EngineFaceSettings":
        if self.key is None and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} can be reached from other machines. Set TUNESMITH_ENGINE_KEY "
                "here and for the API, or listen on 127.0.0.1."
            )
        return self


class EngineSettings(EngineFaceSettings):
    """Of our own engine; read once at start."""

    precision: Precision = Field(
        "auto",
        description="of all weights; auto: a tuned model as it was trained, a base in 16 bits "
        "where those are measured to cost little",
    )
    precision_folder: Path | None = Field(
        None,
        description="where it is kept what 16 bits cost a base, on a disk of this machine; may be "
        "the worker's; None: a folder in the cache folder",
        validation_alias="TUNESMITH_PRECISION_FOLDER",
    )
    max_bases: int = Field(
        16,
        ge=1,
        description="models in memory: bases, each once for generation and once for "
        "classification, and models that were trained whole or merged",
    )
    model_memory_mib: int | None = Field(
        None,
        ge=1,
        description="memory for all of them with their caches; None: 90 % of a GPU's, without one "
        "75 % of the machine's or the container's",
    )
    max_adapters: int = Field(64, ge=1, description="adapters in memory on each base")
    max_batch: int = Field(32, ge=1, description="sequences that run at once")
    max_step_tokens: int = Field(
        512,
        ge=1,
        description="tokens that go through a model at once; longer prompts are read in chunks, "
        "the last of which may be an eighth longer",
    )
    kv_cache_mib: int | None = Field(
        None,
        ge=1,
        description="memory for keys and values on each base that writes; None: 1024, or on a GPU "
        "a quarter of its memory",
    )
    max_waiting: int = Field(256, ge=1, description="sequences that may wait")
    threads: int | None = Field(None, ge=1, description="CPU threads; None: as torch chooses")
    preload_base: BaseModelSpec | None = Field(None, description="loaded at start; JSON")

    @property
    def measured_in(self) -> Path:
        """Where it is kept what 16 bits cost a base."""
        return self.precision_folder or self.cache_folder / "precision"
