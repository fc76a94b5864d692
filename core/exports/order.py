"""An export from the bundle of its model to its files: every step, in its order. Needs no torch.

The caller runs each step, in a child of its own, so that one model is in memory at a time.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from core.errors import InvalidRequest
from core.parity.distance import judge_export
from core.spec.base_model import BaseModelSpec
from core.spec.export import ExportOptions, ExportReplay, ExportStage
from core.spec.export_steps import (
    ExportStep,
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

RunStep = Callable[[ExportStep], StepResult]
"""Returns the result of a step, which is of the kind that belongs to it; or raises StepFailed."""


class StepFailed(InvalidRequest):
    """A step of an export failed, and would again."""

    code = "export_failed"


@dataclass(frozen=True)
class Export:
    """What is exported, and where to. `llama_cpp` is the folder of its converters."""

    base: BaseModelSpec
    bundle: Path
    """The folder of the unpacked bundle."""
    options: ExportOptions
    out: Path
    """The folder of the files, which does not exist yet; temporary ones are beside it."""
    reference: ParityReference | None
    """The rows that are compared."""
    gap_nats: float | None
    """For qlora: what quantization alone did to the served model."""
    llama_cpp: Path | None


def write_export(
    export: Export, run: RunStep, tell: Callable[[ExportStage], None]
) -> tuple[Written, ExportReplay]:
    """Write the files into `export.out`, load them as their users do, and compare.

    Raises what `run` raises if the files cannot be written. A replay that fails marks the export.
    """
    tell("scoring")
    served = _served(export, run)
    tell("writing")
    written = _write(export, run)
    tell("replaying")
    return written, _replay(export, run, served, written)


def _served(export: Export, run: RunStep) -> ServedFigures | str:
    """Return the figures of the served model, or why there are none."""
    step = ServeStep(
        base=export.base,
        bundle=export.bundle,
        options=export.options,
        reference=export.reference,
    )
    try:
        return cast(ServedFigures, run(step))
    except StepFailed as error:
        return f"The served model could not be scored: {error.message}"


def _write(export: Export, run: RunStep) -> Written:
    format_ = export.options.format
    if format_ == "adapter-gguf":
        return _convert(export, run, export.bundle)
    if format_ not in ("nf4", "int8", "gguf"):
        return _write_folder(export, run, export.out)
    dense = export.out.with_name("dense")
    _write_folder(export, run, dense)
    if format_ == "gguf":
        written = _convert(export, run, dense)
    else:
        written = _quantize(export, run, dense, format_)
    shutil.rmtree(dense)
    return written


def _write_folder(export: Export, run: RunStep, out: Path) -> Written:
    """Write the complete model or the adapter, in the layout of transformers or PEFT."""
    step = WriteStep(base=export.base, bundle=export.bundle, options=export.options, out=out)
    return cast(Written, run(step))


def _quantize(
    export: Export, run: RunStep, dense: Path, quantization: Literal["nf4", "int8"]
) -> Written:
    step = QuantizeStep(
        bundle=export.bundle, model=dense, quantization=quantization, out=export.out
    )
    return cast(Written, run(step))


def _convert(export: Export, run: RunStep, source: Path) -> Written:
    step = GgufStep(
        base=export.base,
        source=source,
        quantization=export.options.quantization,
        llama_cpp=export.llama_cpp,
        out=export.out,
    )
    return cast(Written, run(step))


def _replay(
    export: Export, run: RunStep, served: ServedFigures | str, written: Written
) -> ExportReplay:
    if isinstance(served, str):
        return ExportReplay(status="unchecked", reason=served)
    step = ReplayStep(
        base=export.base,
        bundle=export.bundle,
        folder=export.out,
        options=export.options,
        served=served,
        llama_cpp=export.llama_cpp,
    )
    try:
        found = cast(ReplayedFigures, run(step))
    except StepFailed as error:
        status: Literal["unchecked", "marked"] = (
            "unchecked" if error.code == "does_not_fit" else "marked"
        )
        return ExportReplay(status=status, reason=f"Its replay failed: {error.message}")
    return judge_export(export.options, written.stored_in, served, found.figures, export.gap_nats)
