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


ACCURACY_MEASURED_IN = "bench/results/quality-amd-epyc-1-threads-2026-12-01.json"
SEEDS = 3


@dataclass(frozen=True)
class MeasuredAccuracy:
    """Shares of held-out rows answered right, beside TRL and PEFT: means over seeds."""

    task: str
    rows: int
    steps: int
    seeds: int
    accuracy: float
    standard_deviation: float
    peer_accuracy: float


def _on(
    base: str, task: str, rows: int, steps: int, found: dict[str, tuple[float, float, float]]
) -> dict[tuple[str, str], MeasuredAccuracy]:
    """Return the measurements of one task by base and strategy."""
    return {
        (base, strategy): MeasuredAccuracy(task, rows, steps, SEEDS, *figures)
        for strategy, figures in found.items()
    }


MEASURED_ACCURACY: dict[tuple[str, str], MeasuredAccuracy] = {
    **_on(
        "tunesmith/tiny",
        "module of a docstring",
        64,
        48,
        {
            "full": (0.417, 0.051, 0.417),
            "lora": (0.467, 0.075, 0.467),
            "qlora": (0.453, 0.050, 0.440),
            "bottleneck": (0.397, 0.042, 0.397),
            "prefix": (0.193, 0.042, 0.193),
            "prompt": (0.180, 0.069, 0.180),
            "ia3": (0.313, 0.095, 0.313),
        },
    ),
    **_on(
        "minilm",
        "module as a label",
        96,
        48,
        {
            "full": (0.333, 0.057, 0.331),
            "lora": (0.489, 0.030, 0.444),
            "qlora": (0.484, 0.057, 0.433),
            "bottleneck": (0.433, 0.046, 0.416),
            "prefix": (0.240, 0.055, 0.238),
            "prompt": (0.144, 0.050, 0.131),
            "ia3": (0.376, 0.041, 0.362),
        },
    ),
}
"""By base and strategy, from the file above, with the learning rate `auto`: accuracy, its standard
deviation, and the accuracy of TRL and PEFT. `make real-bases` gives the bases these names."""


def quality_of(base: str, strategy: str) -> tuple[MeasuredQuality | None, str | None]:
    """Return our own measurement of a strategy on a base, or None and why there is none."""
    if (found := MEASURED_QUALITY.get((base, strategy))) is not None:
        return found, None
    if any(base == measured for measured, _ in MEASURED_QUALITY):
        return None, f"{strategy} was not part of the comparison on {base}"
    return None, f"no comparison of strategies on {base} has been measured"
