"""OpenAI's model object, with our `parity` beside its fields."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

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
        description="of a model whose parity failed: when its owner published it anyway",
    )
    serving: ServingObject
    precision: PrecisionChoice | None = Field(
        None,
        description="of a base: the number format of `auto` and the measured cost of 16 bits; null "
        "until an engine has measured it, and for tuned models, which are served in the format of "
        "their training",
    )


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
