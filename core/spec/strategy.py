"""What is trained: one class per strategy.

A strategy is one class here, one file with `attach` in `core/strategies/` and one `case`
in `core/strategies/attach.py`.
"""

from typing import Literal

from pydantic import AliasChoices, Field

from core.spec.base import Spec

Preset = Literal["query-value", "attention", "attention+ffn", "all-linear"]
"""Named sets of linear layers; `core/catalog/families.py` says which modules they are."""


class LoraSpec(Spec):
    """Low-rank adaptation: W x + (alpha / rank) B A x with A (rank, in) and B (out, rank) trained.

    Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685. The names people know from
    PEFT (`r`, `lora_alpha`, `lora_dropout`) are accepted as well.
    """

    type: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1, le=1024, validation_alias=AliasChoices("rank", "r"))
    alpha: float = Field(32.0, gt=0, le=65536, validation_alias=AliasChoices("alpha", "lora_alpha"))
    dropout: float = Field(
        0.0, ge=0, lt=1, validation_alias=AliasChoices("dropout", "lora_dropout")
    )
    target_modules: Preset | tuple[str, ...] = "all-linear"


StrategySpec = LoraSpec
"""Any strategy; becomes a union discriminated by `type` when the second one arrives."""
