"""Whether a run fits on a worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.catalog.strategies import STRATEGIES
from core.planning.memory import USUAL_CPU, MemoryParts, is_checked_dense, peak_memory
from core.planning.run import PlannedRun, itemsize
from core.planning.step_memory import Device
from core.planning.time import step_seconds
from core.spec.calibration import Calibration
from core.spec.precision import NumberFormat

Verdict = Literal["yes", "tight", "no"]
"""`yes`: with a margin, in the memory that is free while the worker is idle. `no`: not even in the
memory of the whole device, less the margin. `tight`: neither is sure."""

MARGIN = 0.15
"""The largest error of a prediction."""

FP32_SHARE = 0.5
"""The largest share of the memory for fp32 weights with the precision `auto`; the constant of
`core/models/precision_choice.py`."""


@dataclass(frozen=True)
class Correction:
    """A dry run's figures as multiples of the predicted ones, and the precision of its run."""

    memory: float = 1.0
    seconds: float = 1.0
    precision: NumberFormat | None = None


UNCORRECTED = Correction()


@dataclass(frozen=True)
class Fit:
    """A run on one device."""

    verdict: Verdict | None
    """None without a measured device."""
    headroom_bytes: int | None
    """The free memory minus the peak."""
    memory: MemoryParts
    peak_bytes: int
    """The sum of the parts, corrected by a dry run if there was one."""
    precision: NumberFormat
    checkpointed: bool
    seconds_per_step: float | None


def judge(
    run: PlannedRun, calibration: Calibration | None, correction: Correction = UNCORRECTED
) -> Fit:
    """Return how the run fits; without a calibration, on a usual CPU and without a verdict.

    `auto` of gradient checkpointing enables it only if the run does not fit otherwise.
    """
    wanted = run.training.gradient_checkpointing
    if wanted != "auto":
        return _judge(run, calibration, correction, checkpointed=bool(wanted))
    plain = _judge(run, calibration, correction, checkpointed=False)
    if plain.verdict in ("yes", None) or drops_prefix(run):
        return plain
    return _judge(run, calibration, correction, checkpointed=True)


def drops_prefix(run: PlannedRun) -> bool:
    """Return whether checkpointing would drop the prefix of an encoder-decoder."""
    hands_over_keys = STRATEGIES[run.spec.strategy.type].hands_over_keys
    return run.family.kind == "encoder-decoder" and hands_over_keys


def best_fit(fits: Sequence[Fit]) -> Fit:
    """Return the fit with the best verdict, then the most headroom."""
    order: list[Verdict | None] = ["no", None, "tight", "yes"]
    return max(fits, key=lambda fit: (order.index(fit.verdict), fit.headroom_bytes or 0))


def planned_precision(run: PlannedRun, calibration: Calibration | None) -> NumberFormat:
    """Return the number format that memory is planned for.

    `auto` is measured during the run. On a CPU it is planned as fp32, which needs the most memory,
    unless fp32 would not be allowed; on a GPU as 16 bits, which suits all but small bases.
    """
    asked = run.training.precision
    if asked != "auto":
        return asked
    if calibration is None or not (calibration.native_bf16 or calibration.kind == "cuda"):
        return "fp32"
    coarse: NumberFormat = "bf16" if calibration.native_bf16 else "fp16"
    if calibration.kind == "cuda" or run.quantization is not None:
        is_dense_in_files = run.quantization is None or run.spec.strategy.type == "qlora"
        return "fp32" if calibration.kind == "cpu" and is_dense_in_files else coarse
    weights = itemsize("fp32") * run.outline.parameters
    return "fp32" if weights <= FP32_SHARE * calibration.memory_bytes else coarse


def _judge(
    run: PlannedRun,
    calibration: Calibration | None,
    correction: Correction,
    *,
    checkpointed: bool,
    checks_dense: bool = True,
) -> Fit:
    precision = planned_precision(run, calibration)
    if run.training.precision == "auto" and correction.precision is not None:
        precision = correction.precision
    parts = peak_memory(
        run,
        device_of(calibration),
        precision,
        checkpointed=checkpointed,
        checks_dense=checks_dense,
    )
    training = int((parts.total - parts.other_phases) * correction.memory)
    peak = max(training, parts.total) if parts.other_phases else training
    if calibration is None:
        return Fit(None, None, parts, peak, precision, checkpointed, None)
    verdict = _verdict(peak, calibration)
    if verdict != "yes" and checks_dense and is_checked_dense(run):
        # a run omits this check if memory is short
        options = {"checkpointed": checkpointed, "checks_dense": False}
        return _judge(run, calibration, correction, **options)
    seconds = step_seconds(run, calibration, precision, checkpointed=checkpointed)
    headroom = calibration.free_bytes - peak
    corrected = seconds * correction.seconds
    return Fit(verdict, headroom, parts, peak, precision, checkpointed, corrected)


def _verdict(peak: int, calibration: Calibration) -> Verdict:
    if peak * (1 + MARGIN) <= calibration.free_bytes:
        return "yes"
    return "no" if peak > (1 + MARGIN) * calibration.memory_bytes else "tight"


def device_of(calibration: Calibration | None) -> Device:
    """Return the device of a worker; a usual CPU without one."""
    if calibration is None:
        return USUAL_CPU
    return Device(calibration.kind, calibration.native_bf16, calibration.runtime_bytes)
