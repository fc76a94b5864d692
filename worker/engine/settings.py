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
