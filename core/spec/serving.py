"""In which form a tuned model is served."""

from typing import Literal

from pydantic import AliasChoices, Field, model_validator

from core.spec.base import Spec
from core.spec.base_model import Quantization
from core.spec.names import Aliased


class ServingSpec(Aliased, Spec):
    """`adapter` shares its base with other models; `merged` is weights of its own.

    A fully trained model has its own weights in both forms.
    """

    form: Literal["adapter", "merged"] = "adapter"
    quantization: Quantization | None = Field(
        None,
        description="of the merged weights; None: as the engine keeps a base",
        validation_alias=AliasChoices("quantization", "quantisation"),
    )

    @model_validator(mode="after")
    def _require_own_weights(self) -> "ServingSpec":
        if self.form == "adapter" and self.quantization is not None:
            raise ValueError(
                "quantization needs the form merged: an adapter runs on its base as that is"
            )
        return self


ADAPTER_FORM = ServingSpec()
"""How a model is served unless its owner has chosen."""
