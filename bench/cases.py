"""The benchmark cases: a strategy of ours, and the equivalent settings of TRL and PEFT."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

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
    """A setting of TRL. All have a chunked loss head, the only option of TRL 1.16.

    padded: the rows of a step, padded to the longest. padding-free: the same rows as one
    sequence with a block mask. packed: bins of 512 tokens filled best-fit, two per step, as one
    sequence, so steps hold other rows. ("wrapped" packing lets rows see each other and is out.)
    """

    layout: Layout
    precision: TrlPrecision
    liger: bool = False
    """Uses Liger's fused kernels, which need a CUDA device."""

    @property
    def name(self) -> str:
        kernels = ", Liger" if self.liger else ""
        return f"TRL {self.layout}{kernels}, {self.precision}"

    @property
    def same_steps(self) -> bool:
        """Whether each step has the same rows as ours."""
        return self.layout != "packed"


@dataclass(frozen=True)
class Case:
    """One table. `reference` names the library used besides TRL."""

    strategy: StrategySpec
    reference: str
    settings: tuple[TrlSetting, ...]
    flops_per_parameter: int
    """The least FLOPs of one token per parameter of a frozen or trained matrix."""

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
        # The `adapters` library requires an older transformers, so the peer uses plain modules.
        Case(
            BottleneckSpec(),
            "the same layers as plain modules",
            _settings("padded", "padding-free", "packed"),
            4,
        ),
        # PEFT prepends a prefix or prompt per row of the batch, so its rows cannot be packed.
        Case(PrefixSpec(), "PEFT", _settings("padded"), 4),
        Case(PromptSpec(), "PEFT", _settings("padded"), 4),
    )
}


REACH = 0.85
"""The share of the fastest peer's speed below which a peer is not run after the first round."""


class Peer(Protocol):
    """A setting of TRL, or a run of it."""

    @property
    def name(self) -> str: ...

    @property
    def same_steps(self) -> bool: ...


def within_reach(peers: Sequence[Peer], speeds: Mapping[str, float]) -> set[str]:
    """Return the peers that may be the fastest: of all, in fp32, and with our steps."""
    found: set[str] = set()
    fp32 = [peer for peer in peers if peer.name.endswith("fp32")]
    same = [peer for peer in peers if peer.same_steps]
    for group in (peers, fp32, same, [peer for peer in fp32 if peer.same_steps]):
        best = max((speeds[peer.name] for peer in group), default=0.0)
        found |= {peer.name for peer in group if speeds[peer.name] >= REACH * best}
    return found
