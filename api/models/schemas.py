"""OpenAI's model object, with our `parity` beside its fields."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from core.spec.base_model import Quantization
from core.spec.names import Aliased
from core.spec.parity import Parity
from core.spec.precision import PrecisionChoice


class ServingObject(BaseModel):
    """Ours: in which form the engine holds the model.

    Of an adapter `quantization` is that of the base that it runs on.
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
        description="of a tuned model: whether it was found to be served as it was trained; null "
        "for bases, for checkpoints until they are first asked, and for models that are older than "
        "this check",
    )
    published_at: int | None = Field(
        None,
        description="of a model whose parity failed: when its owner had it answer all the same",
    )
    serving: ServingObject
    precision: PrecisionChoice | None = Field(
        None,
        description="of a base: the number format that `auto` takes for it and what 16 bits were "
        "measured to cost; null until an engine has met it, and for tuned models, which are served "
        "in the format that they were trained in",
    )


class ServingBody(Aliased):
    """The form that a tuned model is to be served in from now on."""

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
