"""Batches in a workshop: creation as the API does it, and attempts that are killed."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from core.records import files
from core.records.batches import BATCH, NewBatch, create_batch
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import Batch, File
from core.spec.batch import BatchModel
from tests.api.batch_files import CHAT, as_file
from tests.worker.killed_attempts import attempt_task_until
from tests.worker.workshop import TINY, Workshop
from worker.batches import journal


def create(workshop: Workshop, lines: Sequence[dict[str, Any]]) -> str:
    """Create a batch as the API does; return its id."""
    file_id, key = files.new_file_key()
    blob = workshop.store.write(key, [as_file(lines)])
    with workshop.database.writing() as session:
        ensure_project(session)
        files.add_file(
            session,
            file_id=file_id,
            project_id=DEFAULT_PROJECT,
            filename="requests.jsonl",
            purpose="batch",
            bytes=blob.bytes,
            sha256=blob.sha256,
            blob_key=key,
            report=None,
        )
        new = NewBatch(
            project_id=DEFAULT_PROJECT,
            endpoint=CHAT,
            input_file_id=file_id,
            completion_window="24h",
            window_seconds=86_400,
            total=len(lines),
            model=TINY.id,
            user_metadata=None,
            output_expires_seconds=None,
        )
        model = BatchModel(id=TINY.id, base=TINY, adapter=None)
        return create_batch(session, new, key, {TINY.id: model})[0].id


def attempt_until(workshop: Workshop, point: int | None) -> int | None:
    """Claim the batch and run it up to a point; return the points passed, None if it ended."""
    return attempt_task_until(workshop, BATCH, journal, point)


def row(workshop: Workshop, batch_id: str) -> Batch:
    with workshop.database.reading() as session:
        return get_owned(session, Batch, DEFAULT_PROJECT, batch_id)


def ids_in(workshop: Workshop, file_id: str | None) -> Counter[str]:
    """The ids of the answered lines in a file, with their number."""
    if file_id is None:
        return Counter()
    with workshop.database.reading() as session:
        file = get_owned(session, File, DEFAULT_PROJECT, file_id)
    content = b"".join(workshop.store.read(file.blob_key))
    return Counter(json.loads(line)["custom_id"] for line in content.splitlines())
