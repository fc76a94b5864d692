"""What would make a run fit on a worker."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.planning.fit import UNCORRECTED, Correction, drops_prefix, judge
from core.planning.run import PlannedRun
from core.spec.calibration import Calibration
from core.spec.strategy import FullSpec, LoraSpec, QloraSpec
from core.spec.training import SHORTEST_ROW


@dataclass(frozen=True)
class Suggestion:
    """Changes of a job's body after which it fits, and the reason in words."""

    changes: dict[str, Any]
    message: str
    run: PlannedRun


def suggestion(
    run: PlannedRun, calibration: Calibration, correction: Correction = UNCORRECTED
) -> Suggestion | None:
    """Return the smallest change after which the run fits; None if none helps.

    The changes are tried in this order, each together with the ones before: recomputed activations,
    smaller micro-batches, a quantized base, shorter rows.
    """
    for changes, changed in _smaller(run):
        if judge(changed, calibration, correction).verdict == "yes":
            return Suggestion(changes, f"Set {_in_words(changes)}.", changed)
    return None


def _smaller(run: PlannedRun) -> Iterator[tuple[dict[str, Any], PlannedRun]]:
    training: dict[str, Any] = {}
    if run.training.gradient_checkpointing is False and not drops_prefix(run):
        training["gradient_checkpointing"] = True
        run = run.with_training(gradient_checkpointing=True)
        yield {"training": dict(training)}, run
    shortest = max(SHORTEST_ROW, run.workload.longest_tokens)
    tokens = run.training.micro_batch_tokens
    while tokens > shortest:
        tokens = max(shortest, tokens // 2)
        training["micro_batch_tokens"] = tokens
        run = run.with_training(micro_batch_tokens=tokens)
        yield {"training": dict(training)}, run
    changes: dict[str, Any] = {"training": training} if training else {}
    if isinstance(run.spec.strategy, FullSpec) and run.quantization is None:
        changes = changes | {"strategy": {"type": "lora"}}
        run = run.with_strategy(LoraSpec())
        yield changes, run
    if isinstance(run.spec.strategy, LoraSpec) and run.quantization is None:
        options = run.spec.strategy.model_dump(exclude={"type"}, exclude_unset=True)
        changes = changes | {"strategy": {"type": "qlora", **options}}
        run = run.with_strategy(QloraSpec(**options))
        yield changes, run
    length = run.training.max_length
    while length // 2 >= 64:
        length //= 2
        short = {"max_length": length, "truncation": "end", "micro_batch_tokens": length}
        run = run.with_training(**short)
        yield changes | {"training": {**training, **short}}, run


def _in_words(changes: dict[str, Any]) -> str:
    training = changes.get("training", {}).items()
    parts = [f"training.{name} to {json.dumps(value)}" for name, value in training]
    if "strategy" in changes:
        parts.append(f"strategy.type to {changes['strategy']['type']}")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
