"""Writes the output file and the error file of a batch that is at its end."""

from collections.abc import Container, Sequence
from pathlib import Path

from core.records.files import StoredFile, file_key
from core.records.tables import BatchPart
from core.spec.batch import BatchStatus
from core.spec.ids import FileId
from worker.batches.lines import requests_of, unanswered_line
from worker.tasks.attempt import Attempt

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
    attempt: Attempt, parts: Sequence[BatchPart], file_id: FileId
) -> StoredFile | None:
    """Join the answers of all parts; None if there are none."""
    path = attempt.folder / "output.jsonl"
    _join(attempt, [part.output_key for part in parts], path)
    return _stored(attempt, path, file_id)


def write_errors(
    attempt: Attempt,
    parts: Sequence[BatchPart],
    file_id: FileId,
    input_file: Path,
    answered: Container[int],
    status: BatchStatus,
) -> tuple[StoredFile | None, int]:
    """Join the errors of all parts and those of unanswered requests; return the latter's number."""
    path = attempt.folder / "error.jsonl"
    _join(attempt, [part.error_key for part in parts], path)
    unanswered = 0
    with path.open("ab") as file:
        for request in requests_of(input_file, answered):
            file.write(unanswered_line(request, *UNANSWERED[status]))
            unanswered += 1
    return _stored(attempt, path, file_id), unanswered


def _join(attempt: Attempt, keys: Sequence[str | None], path: Path) -> None:
    with path.open("wb") as file:
        for key in keys:
            if key is not None:
                file.writelines(attempt.store.read(key))


def _stored(attempt: Attempt, path: Path, file_id: FileId) -> StoredFile | None:
    if path.stat().st_size == 0:
        return None
    blob = attempt.store.write_file(file_key(file_id), path)
    return StoredFile(blob.key, blob.bytes, blob.sha256)
