"""A base model: where its weights are, and how they are stored while it is in memory."""

from typing import Literal

from pydantic import AliasChoices, Field

from core.spec.base import Spec
from core.spec.names import Aliased

Quantization = Literal["nf4", "int8"]
"""How bitsandbytes keeps linear layers: NF4 with its scales quantized too, or int8 by row."""


class BaseModelSpec(Aliased, Spec):
    """A base model of the catalog, resolved."""

    id: str
    source: str = Field(description="absolute folder, or a Hugging Face id")
    revision: str | None = None
    quantization: Quantization | None = Field(
        None,
        description="of its linear layers, done while it is loaded; None: as it is stored",
        validation_alias=AliasChoices("quantization", "quantisation"),
    )
