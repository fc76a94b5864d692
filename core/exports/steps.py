"""Runs one step of an export: the only entry for the child."""

from typing import assert_never

from core.exports.adapter import write_adapter_folder
from core.exports.gguf_steps import replay_gguf, write_gguf
from core.exports.merged import write_merged
from core.exports.quantized import write_quantized
from core.exports.replay import replay
from core.exports.served import serve
from core.spec.export_steps import (
    ExportStep,
    GgufStep,
    QuantizeStep,
    ReplayStep,
    ServeStep,
    StepResult,
    WriteStep,
)


def run_step(step: ExportStep) -> StepResult:
    """Run a step in this process; raises TunesmithError with the reason if it cannot be done."""
    match step:
        case ServeStep():
            return serve(step)
        case WriteStep() if step.options.form == "adapter":
            return write_adapter_folder(step)
        case WriteStep():
            return write_merged(step)
        case QuantizeStep():
            return write_quantized(step)
        case GgufStep():
            return write_gguf(step)
        case ReplayStep() if step.options.format in ("gguf", "adapter-gguf"):
            return replay_gguf(step)
        case ReplayStep():
            return replay(step)
        case _:
            assert_never(step)
