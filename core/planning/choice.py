"""Chooses the strategy of a job that asks for `auto`, and says why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.planning.fit import Fit, best_fit, judge
from core.planning.run import PlannedRun
from core.spec.strategy import FullSpec, LoraSpec, QloraSpec, StrategySpec

MANY_ROWS = 10_000
SMALL_BASE = 200_000_000
"""Weights up to which all of them are trained, if there are many rows."""

GIB = 2**30


@dataclass(frozen=True)
class Choice:
    strategy: StrategySpec
    reason: str


FitsOf = Callable[[PlannedRun], Sequence[Fit]]
"""Returns how a run fits on each living worker that has measured its device."""


def choose_strategy(run: PlannedRun | None, fits_of: FitsOf) -> Choice:
    """Return the strategy for a run, whose own strategy is not looked at.

    It depends on the base, the rows and the devices of the living workers only. None: the config of
    the base is unknown here.
    """
    if run is None:
        reason = "lora: the config of the base is only on the workers, so nothing was compared"
        return Choice(LoraSpec(), reason)
    lora = run.with_strategy(LoraSpec())
    if lora.quantization is not None:
        return Choice(LoraSpec(), "lora: the weights of the base are quantized")
    weights, rows = lora.outline.parameters, run.workload.rows
    if rows >= MANY_ROWS and weights <= SMALL_BASE:
        full = _fit(run.with_strategy(FullSpec()), fits_of)
        if full.verdict in ("yes", None):
            reason = (
                f"full: {rows:,} rows are many for a base of {weights:,} weights, and training all "
                f"weights {_room(full)}"
            )
            return Choice(FullSpec(), reason)
    plain = _fit(lora, fits_of)
    if plain.verdict in ("yes", None):
        return Choice(LoraSpec(), f"lora: the usual choice, and it {_room(plain)}")
    quantized = _fit(run.with_strategy(QloraSpec()), fits_of)
    if quantized.verdict == "yes":
        reason = (
            f"qlora: lora needs about {plain.peak_bytes / GIB:.1f} GiB, which is too much for the "
            f"workers; on a base in four bits, the run {_room(quantized)}"
        )
        return Choice(QloraSpec(), reason)
    return Choice(
        LoraSpec(), "lora: the default; no strategy is sure to fit on the running workers"
    )


def _fit(run: PlannedRun, fits_of: FitsOf) -> Fit:
    return best_fit(fits_of(run) or [judge(run, None)])


def _room(fit: Fit) -> str:
    peak = f"about {fit.peak_bytes / GIB:.1f} GiB"
    if fit.headroom_bytes is None:
        return f"needs {peak}; no worker has measured its memory yet"
    return f"fits: it needs {peak} and leaves {fit.headroom_bytes / GIB:.1f} GiB"
