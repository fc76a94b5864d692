"""Imports an adapter of PEFT: its files are read in a child with limits, then made into a model."""

from core.adapter_files.bounded import gather_in_child
from core.datasets.bounded import Limits
from core.spec.made_model import ImportRequest, MadeModel
from core.spec.making import ImportSource
from worker.tasks.attempt import Attempt
from worker.tasks.making import Making

LIMITS = Limits(memory_bytes=512 << 20, timeout_seconds=600)
"""Of the child that unpacks the files, which it has not seen before."""


def run(attempt: Attempt) -> MadeModel:
    request = ImportRequest.model_validate(attempt.payload)
    making = Making(attempt, request)
    if (made := making.begin()) is not None:
        return made
    files = []
    for index, file in enumerate(request.files):
        path = attempt.folder / f"file-{index}"
        attempt.store.fetch(file.blob_key, path)
        files.append((file.name, path))
    parts = gather_in_child(files, attempt.folder, LIMITS)
    return making.make(ImportSource(parts=parts, labels=request.labels))
