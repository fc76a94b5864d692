"""What dry runs say about the predictions for the same base and strategy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.planning.fit import Correction, device_of
from core.planning.memory import peak_memory
from core.planning.run import PlannedRun
from core.planning.time import step_seconds
from core.planning.workload import Workload
from core.spec.calibration import Calibration
from core.spec.dry_run import CountedRows, DryRunRequest, DryRunResult


@dataclass(frozen=True)
class DryRun:
    """A finished dry run."""

    request: DryRunRequest
    result: DryRunResult


def correction_by(
    runs: Sequence[DryRun], config: Mapping[str, Any], calibration: Calibration
) -> Correction:
    """Return the correction by the newest of `runs`, which come first, on this machine."""
    for each in runs:
        if each.result.machine == calibration.machine:
            return _compared(each, config, calibration)
    return Correction()


def counted_rows(runs: Sequence[DryRun], wanted: DryRunRequest) -> Workload | None:
    """Return the rows as a dry run of the same files and limits counted them."""
    for each in runs:
        if _row_facts(each.request) == _row_facts(wanted):
            return workload_from(each.result.counted)
    return None


def workload_from(rows: CountedRows, *, is_exact: bool = True) -> Workload:
    """Return the workload of counted or estimated rows."""
    return Workload(**rows.model_dump(), is_exact=is_exact)


def rows_from(workload: Workload) -> CountedRows:
    """Return the rows of a workload, for storage."""
    return CountedRows.model_validate(
        {name: value for name, value in vars(workload).items() if name != "is_exact"}
    )


def _row_facts(request: DryRunRequest) -> tuple[Any, ...]:
    spec, training = request.spec, request.spec.training
    return (
        request.train_key,
        spec.task,
        spec.objective.type,
        spec.columns,
        spec.evaluation.split,
        training.max_length,
        training.truncation,
        training.deduplicate,
        spec.chat_template_kwargs,
    )


def _compared(dry_run: DryRun, config: Mapping[str, Any], calibration: Calibration) -> Correction:
    result = dry_run.result
    run = measured_run(dry_run, config)
    checkpointed, precision = result.gradient_checkpointing, result.precision
    parts = peak_memory(run, device_of(calibration), precision, checkpointed=checkpointed)
    seconds = step_seconds(run, calibration, precision, checkpointed=checkpointed)
    return Correction(
        memory=result.peak_memory_bytes / (parts.total - parts.other_phases),
        seconds=result.seconds_per_step / seconds,
        precision=precision,
    )


def measured_run(dry_run: DryRun, config: Mapping[str, Any]) -> PlannedRun:
    """Return the run whose every step is the measured one: one row per pass, of its tokens."""
    result, spec = dry_run.result, dry_run.request.spec
    counted = workload_from(result.counted)
    batch = min(spec.training.batch_size, counted.rows)
    mean = result.batch_tokens / batch
    workload = Workload(
        rows=batch,
        mean_tokens=mean,
        longest_tokens=max(counted.longest_tokens, -(-result.batch_tokens // batch)),
        sequences_per_row=counted.sequences_per_row,
        labelled_share=counted.labelled_share,
        is_exact=True,
    )
    return PlannedRun(spec, config, workload)
