"""The serving form of a tuned model."""

from typing import Literal

from pydantic import AliasChoices, Field, model_validator

from core.spec.base import Spec
from core.spec.base_model import Quantization
from core.spec.names import Aliased


class ServingSpec(Aliased, Spec):
    """`adapter` shares its base with other models; `merged` has its own weights.

    A fully trained model has its own weights in both forms.
    """

    form: Literal["adapter", "merged"] = "adapter"
    quantization: Quantization | None = Field(
        None,
        description="of the merged weights; None: not quantized",
        validation_alias=AliasChoices("quantization", "quantisation"),
    )

    @model_validator(mode="after")
    def _require_own_weights(self) -> "ServingSpec":
        if self.form == "adapter" and self.quantization is not None:
            raise ValueError(
                "quantization requires the form merged, because an adapter uses its base unchanged"
            )
        return self


ADAPTER_FORM = ServingSpec()
"""The default serving form."""
