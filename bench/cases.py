"""What is measured: a strategy of ours, and every setting of TRL and PEFT that does the same."""

from dataclasses import dataclass
from typing import Literal

from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
    StrategySpec,
)

Layout = Literal["padded", "padding-free", "packed"]
TrlPrecision = Literal["fp32", "bf16 autocast", "bf16 weights", "bf16 weights + autocast"]

PRECISIONS: tuple[TrlPrecision, ...] = (
    "fp32",
    "bf16 autocast",
    "bf16 weights",
    "bf16 weights + autocast",
)


@dataclass(frozen=True)
class TrlSetting:
    """One way to run TRL. The head is chunked in all of them: TRL 1.16 knows no other.

    padded: the rows of a step, padded to the longest. padding-free: the same rows as one
    sequence with a block mask. packed: bins of 512 tokens filled best-fit, two per step, as one
    sequence, so steps hold other rows. ("wrapped" packing lets rows see each other and is out.)
    """

    layout: Layout
    precision: TrlPrecision
    liger: bool = False
    """With the fused kernels of Liger, which need a CUDA device."""

    @property
    def name(self) -> str:
        kernels = ", Liger" if self.liger else ""
        return f"TRL {self.layout}{kernels}, {self.precision}"

    @property
    def same_steps(self) -> bool:
        """Whether each step holds the very rows of ours."""
        return self.layout != "packed"


@dataclass(frozen=True)
class Case:
    """One table. `reference` names what stands on the other side besides TRL."""

    strategy: StrategySpec
    reference: str
    settings: tuple[TrlSetting, ...]
    flops_per_parameter: int
    """Of one token through one parameter of a frozen or trained matrix, at the least."""

    @property
    def name(self) -> str:
        return self.strategy.type


def _settings(*layouts: Layout) -> tuple[TrlSetting, ...]:
    return tuple(TrlSetting(layout, precision) for precision in PRECISIONS for layout in layouts)


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            LoraSpec(rank=16, alpha=32.0),
            "PEFT",
            _settings("padded", "padding-free", "packed"),
            4,
        ),
        Case(
            QloraSpec(rank=16, alpha=32.0),
            "PEFT and bitsandbytes",
            _settings("padded", "padding-free", "packed"),
            4,
        ),
        Case(FullSpec(), "no adapter", _settings("padded", "padding-free", "packed"), 6),
        # The `adapters` library wants an older transformers, so the peer has plain modules.
        Case(
            BottleneckSpec(),
            "the same layers as plain modules",
            _settings("padded", "padding-free", "packed"),
            4,
        ),
        # PEFT gives a prefix or a prompt to whole rows of a batch: its rows cannot share one.
        Case(PrefixSpec(), "PEFT", _settings("padded"), 4),
        Case(PromptSpec(), "PEFT", _settings("padded"), 4),
    )
}
