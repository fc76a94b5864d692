"""Settings of the engine process, from the environment."""

from pathlib import Path

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.spec.addresses import is_loopback
from core.spec.run import BaseModelSpec
from core.spec.training import Precision


class EngineSettings(BaseSettings):
    """Read once at start; every name has the prefix TUNESMITH_ENGINE_ unless it says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix="TUNESMITH_ENGINE_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    host: str = "127.0.0.1"
    port: int = Field(8001, ge=0, le=65535)
    key: SecretStr | None = Field(
        None, description="what the API must send; None: nothing, on a loopback address only"
    )
    storage_folder: Path = Field(
        validation_alias="TUNESMITH_STORAGE_FOLDER",
        description="the blob storage that API and workers use",
    )
    cache_folder: Path = Field(description="unpacked adapter bundles, on a disk of this machine")
    precision: Precision = "auto"
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
        512, ge=1, description="tokens that go through a model at once; prompts are read in chunks"
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

    @model_validator(mode="after")
    def _refuse_an_open_engine(self) -> "EngineSettings":
        if self.key is None and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} can be reached from other machines. Set TUNESMITH_ENGINE_KEY "
                "here and for the API, or listen on 127.0.0.1."
            )
        return self
