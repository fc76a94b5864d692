"""OpenAI's model object, with our `parity` beside its fields."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from core.spec.base_files import BaseState
from core.spec.base_model import Quantization
from core.spec.names import Aliased
from core.spec.parity import Parity
from core.spec.precision import PrecisionChoice


class ServingObject(BaseModel):
    """Ours: how the engine serves the model.

    For an adapter, `quantization` is that of its base.
    """

    form: Literal["base", "adapter", "merged"]
    quantization: Quantization | None


class ModelObject(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    parity: Parity | None = Field(
        None,
        description="of a tuned model: whether it is served as it was trained; null "
        "for bases, for checkpoints until their first request, and for models that are older than "
        "this check",
    )
    published_at: int | None = Field(
        None,
        description="of a model that was withheld: when its owner published it anyway",
    )
    unmet_requirements: str | None = Field(
        None,
        description="of a tuned model: which requirements of `evaluation.require` it does not "
        "meet; it answers only once it is published",
    )
    serving: ServingObject
    precision: PrecisionChoice | None = Field(
        None,
        description="of a base: the number format of `auto` and the measured cost of 16 bits; null "
        "until an engine has measured it, and for tuned models, which are served in the format of "
        "their training",
    )

    state: BaseState | None = Field(
        None,
        description="of a base: whether its files are where they are needed, can be downloaded "
        "from the Hugging Face hub, or neither",
    )
    bytes: int | None = Field(None, description="of a base: the size of its weights, if known")
    license: str | None = Field(None, description="of a base, if known")


class DownloadError(BaseModel):
    code: str
    message: str
    param: str | None


class DownloadObject(BaseModel):
    """Ours: the download of a base from the Hugging Face hub."""

    object: Literal["model.download"] = "model.download"
    model: str
    status: Literal["queued", "running", "succeeded", "failed"]
    bytes: int
    """On the disk so far, of all files."""
    total_bytes: int | None
    """None until the hub has listed the files."""
    error: DownloadError | None = None


class ServingBody(Aliased):
    """The new serving form of a tuned model."""

    model_config = ConfigDict(extra="forbid")

    form: Literal["adapter", "merged"]
    quantization: Quantization | None = Field(
        None, validation_alias=AliasChoices("quantization", "quantisation")
    )
    """Of the merged weights."""


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]


class DeletedModel(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True
