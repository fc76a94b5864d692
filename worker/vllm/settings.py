"""Settings of the bridge to a vLLM server, from the environment."""

from pathlib import Path, PurePosixPath

from pydantic import Field, SecretStr, field_validator

from core.spec.base_model import BaseModelSpec
from core.spec.parity import NumberFormat
from worker.engine_face.settings import EngineFaceSettings


class VllmSettings(EngineFaceSettings):
    """Read once at start; prefix TUNESMITH_ENGINE_, as for every engine."""

    vllm_url: str = Field(
        pattern=r"^https?://[^?#@\s]+$",
        description="the vLLM server, without the /v1 of its routes",
    )
    vllm_key: SecretStr | None = Field(None, description="what vLLM was given as --api-key")
    vllm_base: BaseModelSpec = Field(
        description="the base of the catalog that vLLM serves; JSON with id, source and revision"
    )
    vllm_adapter_folder: PurePosixPath | None = Field(
        None,
        description="as what vLLM sees the cache folder; None: under the same path",
    )
    precision: NumberFormat = Field(
        "bf16", description="in which vLLM keeps the weights, its --dtype; parity is judged by it"
    )
    max_adapters: int = Field(64, ge=1, description="adapters that vLLM keeps registered")
    max_batch: int = Field(256, ge=1, description="sequences that vLLM runs at once")

    @field_validator("vllm_adapter_folder")
    @classmethod
    def _require_absolute(cls, folder: PurePosixPath | None) -> PurePosixPath | None:
        if folder is not None and not folder.is_absolute():
            raise ValueError("vLLM would look for a model of the hub; give an absolute path")
        return folder

    @property
    def adapters_seen_at(self) -> PurePosixPath:
        """The cache folder as vLLM sees it."""
        return self.vllm_adapter_folder or PurePosixPath(Path(self.cache_folder).absolute())
