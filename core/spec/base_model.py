"""A base model: where its weights are, and how they are stored while it is in memory."""

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, ValidationInfo, field_validator

from core.spec.base import Spec
from core.spec.names import Aliased

Quantization = Literal["nf4", "int8"]
"""How bitsandbytes keeps linear layers: NF4 with its scales quantized too, or int8 by row."""

_SHIPPED_BASES = Path(__file__).resolve().parents[1] / "models"


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

    @field_validator("source")
    @classmethod
    def _find_shipped_base(cls, source: str, info: ValidationInfo) -> str:
        """Return the folder of a shipped base in this installation of the service.

        Rows and messages have its folder in the installation that wrote them, which may be gone
        after an upgrade, or be on another machine.
        """
        owner, _, name = info.data.get("id", "").partition("/")
        if owner == "tunesmith" and source.endswith(f"/core/models/{name}"):
            return str(_SHIPPED_BASES / name)
        return source
