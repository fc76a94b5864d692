"""When to use which strategy, and what our own measurements say about its results."""

from dataclasses import dataclass

from core.spec.members import for_each
from core.spec.strategy import StrategySpec

WHEN_TO_USE: dict[str, str] = for_each(
    StrategySpec,
    {
        "lora": "the default: few weights, small files, many adapters on one base",
        "qlora": "when the base does not fit into memory otherwise",
        "full": "for much data, or a small base; the result is a complete model",
        "bottleneck": "to compare with the adapter layers of the literature",
        "prefix": "many narrow tasks, very small files",
        "prompt": "the fewest weights; according to its paper, it needs a large base",
        "ia3": "very small files without virtual tokens",
    },
)
"""The texts of `docs/strategies.md`, which a test compares."""

MEASURED_IN = "bench/results/auto-amd-epyc-1-threads-2026-11-28.json"


@dataclass(frozen=True)
class MeasuredQuality:
    """Held-out losses of one comparison, in nats per target."""

    dataset: str
    rows: int
    steps: int
    untrained_loss: float
    loss: float


def _on_tiny(untrained_loss: float, loss: float) -> MeasuredQuality:
    return MeasuredQuality("module of a docstring", 200, 75, untrained_loss, loss)


MEASURED_QUALITY: dict[tuple[str, str], MeasuredQuality] = {
    ("tunesmith/tiny", "lora"): _on_tiny(3.599, 0.521),
    ("tunesmith/tiny", "full"): _on_tiny(3.599, 0.508),
    ("tunesmith/tiny", "bottleneck"): _on_tiny(3.599, 0.665),
    ("tunesmith/tiny", "prefix"): _on_tiny(3.395, 1.063),
    ("tunesmith/tiny", "prompt"): _on_tiny(3.602, 1.409),
}
"""By base and strategy, with the learning rate `auto`; from the file above."""


def quality_of(base: str, strategy: str) -> tuple[MeasuredQuality | None, str | None]:
    """Return our own measurement of a strategy on a base, or None and why there is none."""
    if (found := MEASURED_QUALITY.get((base, strategy))) is not None:
        return found, None
    if any(base == measured for measured, _ in MEASURED_QUALITY):
        return None, f"{strategy} was not part of the comparison on {base}"
    return None, f"no comparison of strategies on {base} has been measured"
