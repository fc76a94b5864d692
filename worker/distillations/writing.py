"""Writes the training file: the kept answers in the order of the prompts, then labelled rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.datasets.check import check
from core.datasets.examples import ChatExample
from core.datasets.read import read_examples
from core.distillation.candidates import Answered
from core.distillation.training_rows import labelled_row, training_row
from core.records.database import Database
from core.records.distillation_progress import TrainingFile
from core.records.files import file_key
from core.spec.distillation import DistillationRequest, LabelledSpec
from core.spec.ids import DistillationId, ProjectId
from core.storage.blobs import BlobStore
from worker.distillations.stored import stored_rows


def write_training_file(
    database: Database,
    store: BlobStore,
    folder: Path,
    project: ProjectId,
    request: DistillationRequest,
) -> TrainingFile:
    """Write the file to storage, under the key of its id; an earlier attempt's is replaced."""
    path = folder / "training.jsonl"
    id_ = DistillationId(request.distillation_id)
    labelled = 0
    with path.open("w", encoding="utf-8") as file:
        for _, body in stored_rows(database, project, id_, "kept"):
            for row in _kept(Answered.model_validate(body)):
                file.write(_line(row))
        if request.labelled is not None:
            for row in _labelled(store, folder, request.labelled):
                file.write(_line(row))
                labelled += 1
    report = check(path)
    blob = store.write_file(file_key(request.training_file), path)
    return TrainingFile(f"{id_}.jsonl", blob.bytes, blob.sha256, blob.key, report, labelled)


def _kept(prompt: Answered) -> Iterator[dict[str, Any]]:
    for each in prompt.candidates:
        if each.status == "kept" and each.message is not None:
            yield training_row(prompt.messages, each.message, prompt.tools)


def _labelled(store: BlobStore, folder: Path, labelled: LabelledSpec) -> Iterator[dict[str, Any]]:
    path = folder / "labelled"
    store.fetch(labelled.blob_key, path)
    for _, example in read_examples(path, labelled.columns):
        if isinstance(example, ChatExample):  # as was checked when the distillation was created
            yield labelled_row(example)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
