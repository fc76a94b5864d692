"""The comparison of all strategies on one base."""

from collections.abc import Mapping
from typing import Any

from api.planning.strategy_schemas import (
    AccuracyObject,
    AssumedRows,
    MemoryObject,
    ParametersObject,
    QualityObject,
    StrategyList,
    StrategyObject,
)
from core.catalog.combinations import require_combination
from core.catalog.families import family_of
from core.catalog.objectives import OBJECTIVES_OF
from core.catalog.strategies import STRATEGIES
from core.errors import InvalidRequest
from core.planning.advice import (
    ACCURACY_MEASURED_IN,
    MEASURED_ACCURACY,
    MEASURED_IN,
    WHEN_TO_USE,
    quality_of,
)
from core.planning.fit import Fit, judge
from core.planning.memory import MemoryParts
from core.planning.parameters import ParameterCounts, outline_of
from core.planning.run import PlannedRun
from core.planning.workload import REFERENCE
from core.spec.base_model import BaseModelSpec
from core.spec.calibration import Calibration
from core.spec.job import JobSpec
from core.spec.members import members
from core.spec.objective import ClassificationSpec, ObjectiveSpec, SupervisedSpec
from core.spec.strategy import StrategySpec

ROWS_PER_STEP = 8


def strategy_table(
    base: BaseModelSpec, config: Mapping[str, Any], workers: Mapping[str, Calibration]
) -> StrategyList:
    """Return all strategies with their defaults, in the order of the catalog."""
    task = family_of(config["model_type"]).own_task
    worker = max(workers, key=lambda name: workers[name].memory_bytes, default=None)
    calibration = None if worker is None else workers[worker]
    specs = {each.model_fields["type"].default: each() for each in members(StrategySpec)}
    objective: ObjectiveSpec = SupervisedSpec()
    if task == "classification":
        objective = ClassificationSpec(labels=("no", "yes"))
    job = JobSpec(base=base, task=task, objective=objective, seed=0)
    job = job.model_copy(
        update={"training": job.training.model_copy(update={"batch_size": ROWS_PER_STEP})}
    )
    return StrategyList(
        model=base.id,
        task=task,
        base_parameters=outline_of(config, task).parameters,
        assumes=AssumedRows(
            tokens_per_row=REFERENCE.longest_tokens,
            rows_per_step=ROWS_PER_STEP,
            micro_batch_tokens=job.training.micro_batch_tokens,
        ),
        worker=worker,
        device=None if calibration is None else calibration.device,
        data=[
            _row(PlannedRun(job, config, REFERENCE).with_strategy(specs[name]), calibration)
            for name in STRATEGIES
        ],
    )


def _row(run: PlannedRun, calibration: Calibration | None) -> StrategyObject:
    strategy = run.spec.strategy
    measured, missing = quality_of(run.spec.base.id, strategy.type)
    quality = None
    if measured is not None:
        quality = QualityObject(**vars(measured), source=MEASURED_IN)
    reason = _why_not(run)
    fit = None if reason is not None else judge(run, calibration)
    return StrategyObject(
        type=strategy.type,
        strategy=strategy,
        supported=reason is None,
        unsupported_reason=reason,
        parameters=None if fit is None else parameters_object(run.counts),
        peak_memory=None if fit is None else memory_object(fit),
        seconds_per_1000_tokens=None if fit is None else _seconds_per_1000_tokens(run, fit),
        fits=None if fit is None else fit.verdict,
        quality=quality,
        quality_missing=missing,
        accuracy=_accuracy(run.spec.base.id, strategy.type),
        when_to_use=WHEN_TO_USE[strategy.type],
    )


def _accuracy(base: str, strategy: str) -> AccuracyObject | None:
    found = MEASURED_ACCURACY.get((base, strategy))
    return None if found is None else AccuracyObject(**vars(found), source=ACCURACY_MEASURED_IN)


def parameters_object(counts: ParameterCounts) -> ParametersObject:
    return ParametersObject(
        total=counts.total,
        trainable=counts.trainable,
        trainable_share=counts.trainable_share,
    )


def memory_object(fit: Fit) -> MemoryObject:
    parts: MemoryParts = fit.memory
    return MemoryObject(total=fit.peak_bytes, parts=vars(parts))


def _seconds_per_1000_tokens(run: PlannedRun, fit: Fit) -> float | None:
    if fit.seconds_per_step is None:
        return None
    return fit.seconds_per_step * 1000 / run.tokens_per_step


def _why_not(run: PlannedRun) -> str | None:
    """Return why the base does not support the strategy with its defaults; None if it does."""
    task, strategy = run.spec.task, run.spec.strategy.type
    model_type, objective = run.family.model_type, OBJECTIVES_OF[task][0]
    is_quantized = run.with_strategy(run.spec.strategy).quantization is not None
    try:
        require_combination(
            model_type, task, objective, strategy, is_quantized and strategy != "qlora"
        )
        _ = run.counts
    except InvalidRequest as error:
        return error.message
    return None
