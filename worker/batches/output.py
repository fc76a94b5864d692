"""Writes the output file and the error file of a batch that is at its end."""

from collections.abc import Container, Sequence
from pathlib import Path

from core.records.files import file_key
from core.records.tables import BatchPart
from core.spec.batch import BatchStatus
from core.spec.ids import FileId
from core.storage.blobs import Blob, BlobStore
from worker.batches.lines import rows_without_answer, unanswered_line

UNANSWERED = {
    BatchStatus.FINALIZING: (
        "batch_expired",
        "The completion window ended before this request was answered.",
    ),
    BatchStatus.CANCELLING: (
        "batch_cancelled",
        "The batch was cancelled before this request was answered.",
    ),
}
"""The code and message of a request without an answer, by the status of the batch."""


def write_output(
    store: BlobStore, folder: Path, parts: Sequence[BatchPart], file_id: FileId
) -> Blob | None:
    """Join the answers of all parts; None if there are none. `folder` is for a local file."""
    path = folder / "output.jsonl"
    _join(store, [part.output_key for part in parts], path)
    return _stored(store, path, file_id)


def write_errors(
    store: BlobStore,
    folder: Path,
    parts: Sequence[BatchPart],
    file_id: FileId,
    input_file: Path,
    answered: Container[int],
    status: BatchStatus,
) -> tuple[Blob | None, int]:
    """Join the errors of all parts and those of unanswered requests; return the latter's number."""
    path = folder / "error.jsonl"
    _join(store, [part.error_key for part in parts], path)
    unanswered = 0
    with path.open("ab") as file:
        for _, row in rows_without_answer(input_file, answered):
            file.write(unanswered_line(row["custom_id"], *UNANSWERED[status]))
            unanswered += 1
    return _stored(store, path, file_id), unanswered


def _join(store: BlobStore, keys: Sequence[str | None], path: Path) -> None:
    with path.open("wb") as file:
        for key in keys:
            if key is not None:
                file.writelines(store.read(key))


def _stored(store: BlobStore, path: Path, file_id: FileId) -> Blob | None:
    if path.stat().st_size == 0:
        return None
    return store.write_file(file_key(file_id), path)
