"""Runs the steps of an export in this process, and judges the result."""

from dataclasses import dataclass
from pathlib import Path

from core.exports.steps import run_step
from core.parity.distance import judge_export
from core.spec.base_model import BaseModelSpec
from core.spec.export import ExportOptions, ExportReplay
from core.spec.export_steps import (
    GgufStep,
    QuantizeStep,
    ReplayedFigures,
    ReplayStep,
    ServedFigures,
    ServeStep,
    StepResult,
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
    llama_cpp: Path | None = None,
) -> ExportReplay:
    """Write an export into `out`, load it as its users do, and compare it."""
    base, folder = bundle.base, bundle.folder
    served = run_step(ServeStep(base=base, bundle=folder, options=options, reference=reference))
    assert isinstance(served, ServedFigures)
    written: StepResult = Written()
    dense = out.with_name("dense") if options.format in ("nf4", "int8", "gguf") else out
    if options.format != "adapter-gguf":
        written = run_step(WriteStep(base=base, bundle=folder, options=options, out=dense))
    if options.format in ("nf4", "int8"):
        run_step(QuantizeStep(bundle=folder, model=dense, quantization=options.format, out=out))
    elif options.format in ("gguf", "adapter-gguf"):
        step = GgufStep(
            base=base,
            source=dense if options.format == "gguf" else folder,
            quantization=options.quantization,
            llama_cpp=llama_cpp,
            out=out,
        )
        written = run_step(step)
    assert isinstance(written, Written)
    replayed = run_step(
        ReplayStep(
            base=base,
            bundle=folder,
            folder=out,
            options=options,
            served=served,
            llama_cpp=llama_cpp,
        )
    )
    assert isinstance(replayed, ReplayedFigures)
    return judge_export(options, written.stored_in, served, replayed.figures, None)
