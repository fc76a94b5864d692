"""What is trained: one class per strategy.

A strategy is one class here, one row in `core/catalog/strategies.py`, one file in
`core/strategies/` and one `case` in `core/strategies/attach.py`; CONTRIBUTING.md has the steps. The
names people know from PEFT (`r`, `lora_alpha`, `num_virtual_tokens`, …) are accepted as well.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from core.spec.base import Spec
from core.spec.names import Aliased
from core.spec.numbers import Flag, Integer, Number
from core.spec.pattern import require_simple

Preset = Literal["query-value", "attention", "attention+ffn", "all-linear"]
"""Named sets of linear layers; `core/catalog/families.py` says which modules they are."""

Rank = Annotated[Integer, Field(ge=1, le=1024)]
Alpha = Annotated[Number, Field(gt=0, le=65536)]
ModuleName = Annotated[str, StringConstraints(max_length=256, pattern=r"^[A-Za-z0-9_.]+$")]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[ -~]+$")]


class FullSpec(Spec):
    """Every weight of the model is trained; the result is a model of its own."""

    type: Literal["full"] = "full"


class LowRankSpec(Aliased, Spec):
    """Low-rank adaptation: W x + scale · B A x with A (rank, in) and B (out, rank) trained.

    The scale is alpha / rank, or alpha / √rank with `use_rslora` (Kalajdzievski 2023,
    https://arxiv.org/abs/2312.03732). `use_dora` also trains the length of each row of the sum
    (Liu et al. 2024, https://arxiv.org/abs/2402.09353). A pattern gives the layers whose path
    matches it (a regular expression, as in PEFT) a rank or an alpha of their own. Modules in
    `modules_to_save` are fully trained.

    Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685.
    """

    rank: Rank = Field(16, validation_alias=AliasChoices("rank", "r"))
    alpha: Alpha = Field(32.0, validation_alias=AliasChoices("alpha", "lora_alpha"))
    dropout: Number = Field(
        0.0, ge=0, lt=1, validation_alias=AliasChoices("dropout", "lora_dropout")
    )
    target_modules: Preset | Annotated[tuple[ModuleName, ...], Field(max_length=1024)] = (
        "all-linear"
    )
    rank_pattern: dict[Pattern, Rank] = Field({}, max_length=256)
    alpha_pattern: dict[Pattern, Alpha] = Field({}, max_length=256)
    use_rslora: Flag = False
    use_dora: Flag = False
    modules_to_save: tuple[ModuleName, ...] = Field((), max_length=64)
    bias: Literal["none"] = "none"
    """The only value: an adapter with biases of its own could not share its base with others."""

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _require_expressions(cls, patterns: dict[str, Any]) -> dict[str, Any]:
        require_simple(patterns)
        return patterns


class LoraSpec(LowRankSpec):
    """LoRA on the base as it is."""

    type: Literal["lora"] = "lora"


class QloraSpec(LowRankSpec):
    """LoRA on a base whose linear layers are quantized to four bits while it is trained.

    Source: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314.
    """

    type: Literal["qlora"] = "qlora"
    quantization: Literal["nf4", "fp4"] = Field(
        "nf4",
        validation_alias=AliasChoices("quantization", "quantisation", "bnb_4bit_quant_type"),
    )
    double_quantization: Flag = Field(
        True,
        validation_alias=AliasChoices(
            "double_quantization", "double_quantisation", "bnb_4bit_use_double_quant"
        ),
    )


class BottleneckSpec(Spec):
    """A small two-layer network after parts of every block: h + up(activation(down(h))).

    `houlsby` puts one after attention and one after the feed-forward network (Houlsby et al.
    2019, https://arxiv.org/abs/1902.00751), `pfeiffer` one after the feed-forward network only
    (Pfeiffer et al. 2021, https://arxiv.org/abs/2005.00247). The inner width is the hidden size
    divided by `reduction_factor`.
    """

    type: Literal["bottleneck"] = "bottleneck"
    placement: Literal["houlsby", "pfeiffer"] = "pfeiffer"
    reduction_factor: Integer = Field(16, ge=1, le=1024)
    activation: Literal["relu", "gelu", "silu"] = "relu"


class PrefixSpec(Aliased, Spec):
    """Keys and values before the first token of every attention layer, trained directly.

    Source: Li & Liang 2021, https://arxiv.org/abs/2101.00190.
    """

    type: Literal["prefix"] = "prefix"
    virtual_tokens: Integer = Field(
        20, ge=1, le=1024, validation_alias=AliasChoices("virtual_tokens", "num_virtual_tokens")
    )


class PromptSpec(Aliased, Spec):
    """Embeddings before the first token, trained directly.

    They start as normal random numbers, which is PEFT's `RANDOM`, or as the embeddings of
    `init_text`, repeated or cut to the right number. Source: Lester et al. 2021,
    https://arxiv.org/abs/2104.08691.
    """

    type: Literal["prompt"] = "prompt"
    virtual_tokens: Integer = Field(
        20, ge=1, le=1024, validation_alias=AliasChoices("virtual_tokens", "num_virtual_tokens")
    )
    init_text: str | None = Field(
        None,
        min_length=1,
        max_length=10_000,
        validation_alias=AliasChoices("init_text", "prompt_tuning_init_text"),
    )


class Ia3Spec(Spec):
    """Vectors that scale keys, values and the inner activations of the feed-forward network.

    Other layers may be named: those in `target_modules` are scaled on their output, those that
    `feedforward_modules` names among them on their input, as in PEFT. Modules in
    `modules_to_save` are fully trained. Source: Liu et al. 2022, https://arxiv.org/abs/2205.05638.
    """

    type: Literal["ia3"] = "ia3"
    target_modules: tuple[ModuleName, ...] = Field((), max_length=1024)
    feedforward_modules: tuple[ModuleName, ...] = Field((), max_length=1024)
    modules_to_save: tuple[ModuleName, ...] = Field((), max_length=64)

    @model_validator(mode="after")
    def _require_subset(self) -> "Ia3Spec":
        extra = [name for name in self.feedforward_modules if name not in self.target_modules]
        if extra:
            raise ValueError(
                f"feedforward_modules names {extra[0]!r}, which is not in target_modules; name it "
                "there too"
            )
        return self


def _type_of(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("type", "lora"))
    return str(getattr(value, "type", "lora"))


_Named = (
    Annotated[FullSpec, Tag("full")]
    | Annotated[LoraSpec, Tag("lora")]
    | Annotated[QloraSpec, Tag("qlora")]
    | Annotated[BottleneckSpec, Tag("bottleneck")]
    | Annotated[PrefixSpec, Tag("prefix")]
    | Annotated[PromptSpec, Tag("prompt")]
    | Annotated[Ia3Spec, Tag("ia3")]
)

StrategySpec = Annotated[_Named, Discriminator(_type_of)]
"""Any strategy; one that names no `type` is LoRA."""


class AutoSpec(Spec):
    """The planner chooses the strategy when the job is created (`core/planning/choice.py`)."""

    type: Literal["auto"] = "auto"


AskedStrategySpec = Annotated[_Named | Annotated[AutoSpec, Tag("auto")], Discriminator(_type_of)]
"""What a request may ask for."""
