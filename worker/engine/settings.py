"""Settings of our own engine, from the environment."""

from pathlib import Path

from pydantic import Field

from core.spec.base_model import BaseModelSpec
from core.spec.training import Precision
from worker.engine_face.settings import EngineFaceSettings


class EngineSettings(EngineFaceSettings):
    """Read once at start."""

    precision: Precision = Field(
        "auto",
        description="number format of all weights; auto: for a tuned model that of its training, "
        "for a base 16 bits if their measured cost is low",
    )
    precision_folder: Path | None = Field(
        None,
        description="the measured costs of 16 bits, on a local disk; may be the worker's folder; "
        "None: a folder in the cache folder",
        validation_alias="TUNESMITH_PRECISION_FOLDER",
    )
    max_bases: int = Field(
        16,
        ge=1,
        description="models in memory: bases, each once for generation and once for "
        "classification, fully trained models and merged models",
    )
    model_memory_mib: int | None = Field(
        None,
        ge=1,
        description="memory for all models and their caches; None: 90 % of a GPU's memory, without "
        "one 75 % of the machine's or the container's",
    )
    max_adapters: int = Field(64, ge=1, description="adapters in memory per base")
    max_batch: int = Field(32, ge=1, description="concurrent sequences; others wait")
    max_step_tokens: int = Field(
        512,
        ge=1,
        description="tokens per step; longer prompts are processed in chunks, the last of which "
        "may be one eighth longer",
    )
    kv_cache_mib: int | None = Field(
        None,
        ge=1,
        description="memory for the KV cache of each generating base; None: 1024, on a GPU a "
        "quarter of its memory",
    )
    max_waiting: int = Field(256, ge=1, description="waiting sequences; more are rejected")
    threads: int | None = Field(None, ge=1, description="CPU threads; None: torch's default")
    busy_file: Path | None = Field(
        None,
        description="marked while the engine computes, for the training runs of this machine, "
        "which use its cores meanwhile",
    )
    preload_base: BaseModelSpec | None = Field(None, description="base to load at start; JSON")

    @property
    def measured_in(self) -> Path:
        """The folder of the measured costs of 16 bits."""
        return self.precision_folder or self.cache_folder / "precision"
