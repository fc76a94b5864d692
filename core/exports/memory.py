"""Whether a step of an export fits into memory and on the disk, before it begins."""

import shutil
from pathlib import Path

import torch

from core.errors import InvalidRequest
from core.models.load import load_config, outline
from core.models.memory import USABLE_SHARE, free_bytes
from core.spec.base_model import BaseModelSpec
from core.spec.objective import Task

DISK_MARGIN_BYTES = 64 * 2**20
"""For the tokenizer and other small files."""


def weight_bytes(source: BaseModelSpec, dtype: torch.dtype, task: Task, labels: int | None) -> int:
    """Return the size of the dense weights in `dtype`."""
    model = outline(source, load_config(source), task, labels)
    return model.num_parameters() * dtype.itemsize


def require_memory(
    source: BaseModelSpec, dtype: torch.dtype, task: Task, labels: int | None, purpose: str
) -> None:
    """Raise InvalidRequest `does_not_fit` unless the dense weights fit into free memory.

    On a CPU, an excessive allocation would kill the process without a message.
    """
    needed = weight_bytes(source, dtype, task, labels)
    free = free_bytes(torch.device("cpu"))
    if free is not None and needed > USABLE_SHARE * free:
        raise InvalidRequest(
            f"The model needs {needed / 2**30:.1f} GiB of memory {purpose}; the worker has "
            f"{free / 2**30:.1f} GiB left. Stop other work on its machine, or run a worker on a "
            "larger one.",
            param="model",
            code="does_not_fit",
        )


def require_disk(folder: Path, needed_bytes: int) -> None:
    """Raise InvalidRequest `disk_full` unless the disk of `folder` has so much room."""
    free = shutil.disk_usage(folder).free
    if needed_bytes + DISK_MARGIN_BYTES > free:
        raise InvalidRequest(
            f"The export needs {needed_bytes / 2**30:.1f} GiB on the disk of the worker, which has "
            f"{free / 2**30:.1f} GiB left. Free some space, or set another TUNESMITH_WORK_FOLDER.",
            param="model",
            code="disk_full",
        )
