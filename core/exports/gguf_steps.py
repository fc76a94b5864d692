"""The steps of an export in llama.cpp's file format; `core.exports.gguf` does the work."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from core.catalog.base_files import weight_files
from core.exports.gguf import read
from core.exports.gguf.llama_cpp import LlamaCpp, find_llama_cpp
from core.exports.gguf.modelfile import modelfile
from core.exports.gguf.write import write_adapter, write_model
from core.exports.memory import require_disk
from core.exports.rows import scored_indices
from core.models.load import folder_of
from core.spec.export_steps import (
    GgufStep,
    ReplayedFigures,
    ReplayStep,
    RowFigures,
    ScoredRow,
    Written,
)

MODEL_FILE = "model.gguf"
ADAPTER_FILE = "adapter.gguf"
MODELFILE = "Modelfile"

_DISK = {"f16": 1.0, "q8_0": 1.0, "q4_k_m": 1.5}
"""The space that a conversion needs at most, as a share of the weights that it reads."""


def write_gguf(step: GgufStep) -> Written:
    """Convert the model or the adapter in `step.source`, with a Modelfile for Ollama."""
    llama_cpp = _llama_cpp(step)
    base = folder_of(step.base, has_weights=True)
    step.out.mkdir(parents=True)
    if step.quantization is not None:
        require_disk(step.out, int(_DISK[step.quantization] * _weight_bytes(step.source)))
        out = step.out / MODEL_FILE
        notes = write_model(llama_cpp, step.source, base, out, step.quantization)
        text = modelfile(step.source, MODEL_FILE)
    else:
        write_adapter(llama_cpp, step.source, base, step.out / ADAPTER_FILE)
        notes, text = (), modelfile(step.source, MODEL_FILE, ADAPTER_FILE)
    (step.out / MODELFILE).write_text(text.text, encoding="utf-8")
    return Written(notes=(*notes, *text.omissions))


def replay_gguf(step: ReplayStep) -> ReplayedFigures:
    """Score the rows with llama.cpp; those of an adapter on its base, which is converted first."""
    llama_cpp = _llama_cpp(step)
    rows = step.served.rows
    if step.options.form == "merged":
        return _scored(llama_cpp, step.folder / MODEL_FILE, rows, None)
    base = folder_of(step.base, has_weights=True)
    require_disk(step.folder, _weight_bytes(base))
    with tempfile.TemporaryDirectory(dir=step.folder.parent) as folder:
        model = Path(folder) / MODEL_FILE
        write_model(llama_cpp, base, base, model, "f16")
        return _scored(llama_cpp, model, rows, step.folder / ADAPTER_FILE)


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in weight_files(folder))


def _llama_cpp(step: GgufStep | ReplayStep) -> LlamaCpp:
    return find_llama_cpp(step.llama_cpp, torch.get_num_threads())


def _scored(
    llama_cpp: LlamaCpp, model: Path, rows: Sequence[ScoredRow], adapter: Path | None
) -> ReplayedFigures:
    asked = [read.Row(row.tokens, tuple(scored_indices(row))) for row in rows]
    found = read.score(llama_cpp, model, asked, adapter)
    figures = (RowFigures(logprobs=each.logprobs, preferred=each.preferred) for each in found)
    return ReplayedFigures(figures=tuple(figures))
