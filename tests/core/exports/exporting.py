"""Writes and judges exports as a worker does, but with all steps in this process."""

from dataclasses import dataclass
from pathlib import Path

from core.exports.order import Export, write_export
from core.exports.steps import run_step
from core.spec.base_model import BaseModelSpec
from core.spec.export import ExportOptions, ExportReplay
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
    wanted = Export(
        base=bundle.base,
        bundle=bundle.folder,
        options=options,
        out=out,
        reference=reference,
        gap_nats=None,
        llama_cpp=llama_cpp,
    )
    _, replay = write_export(wanted, run_step, lambda stage: None)
    return replay
