"""Runs the steps of an export in this process, and judges the result."""

from dataclasses import dataclass
from pathlib import Path

from core.exports.steps import run_step
from core.parity.distance import judge_export
from core.spec.base_model import BaseModelSpec
from core.spec.export import ExportOptions, ExportReplay
from core.spec.export_steps import (
    QuantizeStep,
    ReplayedFigures,
    ReplayStep,
    ServedFigures,
    ServeStep,
    WriteStep,
    Written,
)
from core.spec.parity import ParityReference
from tests.core.engine.bundles import Bundle


@dataclass(frozen=True)
class Exported:
    """A tuned model: its base, and the folder of its bundle."""

    base: BaseModelSpec
    folder: Path


def options_for(format: str, **changes: object) -> ExportOptions:
    return ExportOptions.model_validate({"format": format, "form": "merged"} | changes)


def export(
    bundle: Exported | Bundle,
    options: ExportOptions,
    out: Path,
    reference: ParityReference | None = None,
) -> ExportReplay:
    """Write an export into `out`, load it as its users do, and compare it."""
    folder = bundle.folder
    serving = ServeStep(base=bundle.base, bundle=folder, options=options, reference=reference)
    served = run_step(serving)
    assert isinstance(served, ServedFigures)
    dense = out if options.format not in ("nf4", "int8") else out.with_name("dense")
    step = WriteStep(base=bundle.base, bundle=folder, options=options, out=dense)
    written = run_step(step)
    assert isinstance(written, Written)
    if options.format in ("nf4", "int8"):
        quantize = QuantizeStep(bundle=folder, model=dense, quantization=options.format, out=out)
        run_step(quantize)
    replayed = run_step(
        ReplayStep(base=bundle.base, bundle=folder, folder=out, options=options, served=served)
    )
    assert isinstance(replayed, ReplayedFigures)
    return judge_export(options, written.stored_in, served, replayed.figures, None)
