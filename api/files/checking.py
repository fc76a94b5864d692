"""Checking a dataset in storage, in a child with bounds."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from anyio import CapacityLimiter, WouldBlock, from_thread

from api.app_state import AppState
from core.datasets.bounded import check_in_child
from core.errors import Unavailable
from core.spec.dataset import DatasetReport


def check_blob(state: AppState, key: str, columns: Mapping[str, str]) -> DatasetReport:
    """Return what is in the blob under `key`, read with a mapping of columns."""
    settings = state.settings
    # Beside the blobs, so that a large file is linked and not copied; those of S3 come into the
    # system's folder for temporary files.
    with TemporaryDirectory(prefix=".checking-", dir=settings.storage_folder) as folder:
        path = Path(folder) / "dataset.jsonl"
        state.store.fetch(key, path)
        return check_in_child(
            path,
            columns,
            memory_bytes=settings.check_memory_bytes,
            timeout_seconds=settings.check_timeout_seconds,
        )


@contextmanager
def checking_place(places: CapacityLimiter) -> Iterator[None]:
    """Hold, in a handler's thread, one of the places for checks; Unavailable when all are taken.

    Uploads share them: each is a child with memory of its own.
    """
    holder = object()
    try:
        from_thread.run_sync(places.acquire_on_behalf_of_nowait, holder)
    except WouldBlock:
        raise Unavailable(
            f"{int(places.total_tokens)} files are being checked already; try again in a while.",
            code="too_many_uploads",
        ) from None
    try:
        yield
    finally:
        from_thread.run_sync(places.release_on_behalf_of, holder)
