"""The held-out loss of the model with which a run begins, to compare the tuned model with."""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext

from core.catalog.objectives import OBJECTIVES
from core.errors import TrainingFailed
from core.evaluation.validation import validate
from core.spec.events import RunEvent
from core.training.loop import Stopped, Training
from core.training.state import Baseline, RunState

LONGEST_SECONDS = 120.0
"""The run waits for this measurement, which is one evaluation of the base."""


def measure_baseline(training: Training, state: RunState) -> Iterator[RunEvent]:
    """Measure it before the first step, over the same rows as every evaluation.

    The base is the model without its adapter, or before the first step of a full run; for a job
    that continues a tuned model, that model. Raises Stopped, OutOfMemory; may be repeated then.
    """
    state.baseline = _measured(training, state)
    yield from ()


def _measured(training: Training, state: RunState) -> Baseline:
    rows = training.dataset.validation_rows
    if not rows:
        return Baseline(missing="there are no held-out rows")
    spec, adapted = training.spec, state.adapted
    continues = spec.parent is not None
    if OBJECTIVES[spec.objective.type].trains_head and not continues:
        return Baseline(missing="the head of a classifier is new, so its base has no labels")
    keeps_base = adapted.config is not None and not continues
    if state.step and not keeps_base:
        return Baseline(missing="the run was resumed from a state that does not have it")
    give_up_at = time.monotonic() + LONGEST_SECONDS

    def stop() -> bool:
        return training.stop() or time.monotonic() > give_up_at

    try:
        with adapted.off() if keeps_base else nullcontext():
            found = validate(adapted, training.objective, rows, state.budget_tokens, stop)
    except TrainingFailed as shortage:
        return Baseline(missing=f"not enough memory: {shortage}")
    if found is None:
        if training.stop():
            raise Stopped
        return Baseline(missing=f"it took longer than {LONGEST_SECONDS:.0f} s")
    if not math.isfinite(found.loss):
        return Baseline(missing="its loss is not a finite number")
    return Baseline(loss=found.loss, accuracy=found.accuracy)
