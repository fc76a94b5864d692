"""Settings of the bridge to a vLLM server, from the environment."""

from pathlib import Path, PurePosixPath

from pydantic import Field, SecretStr, field_validator

from core.spec.base_model import BaseModelSpec
from core.spec.parity import NumberFormat
from worker.engine_face.settings import EngineFaceSettings


class VllmSettings(EngineFaceSettings):
    """Read once at start. Each name has the prefix TUNESMITH_ENGINE_, as for every engine."""

    vllm_url: str = Field(
        pattern=r"^https?://[^?#@\s]+$",
        description="the vLLM server, without the /v1 of its routes",
    )
    vllm_key: SecretStr | None = Field(None, description="the --api-key of vLLM")
    vllm_base: BaseModelSpec = Field(
        description="the base of the catalog that vLLM serves; JSON with id, source and revision"
    )
    vllm_adapter_folder: PurePosixPath | None = Field(
        None,
        description="the path of the cache folder for vLLM; None: the same path",
    )
    precision: NumberFormat = Field(
        "bf16", description="the --dtype of vLLM, also used by the parity check"
    )
    max_adapters: int = Field(64, ge=1, description="adapters registered at vLLM")
    max_batch: int = Field(256, ge=1, description="the --max-num-seqs of vLLM")

    @field_validator("vllm_adapter_folder")
    @classmethod
    def _require_absolute(cls, folder: PurePosixPath | None) -> PurePosixPath | None:
        if folder is not None and not folder.is_absolute():
            raise ValueError("must be an absolute path: vLLM looks others up on the hub")
        return folder

    @property
    def adapters_seen_at(self) -> PurePosixPath:
        """The path of the cache folder for vLLM."""
        return self.vllm_adapter_folder or PurePosixPath(Path(self.cache_folder).absolute())
