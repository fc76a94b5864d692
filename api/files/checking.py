"""Checks a stored dataset in a child process with limits."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anyio import CapacityLimiter, WouldBlock, from_thread

from api.app_state import AppState
from core.adapter_files.bounded import check_adapter_in_child
from core.datasets.bounded import (
    Limits,
    check_in_child,
    check_items_in_child,
    check_requests_in_child,
    schema_fault_in_child,
)
from core.errors import Unavailable
from core.inference.endpoints import ENDPOINTS
from core.spec.adapter_file import AdapterReport
from core.spec.batch import BatchReport
from core.spec.dataset import DatasetReport
from core.spec.evals import EvalFileReport


def check_blob(state: AppState, key: str, columns: Mapping[str, str]) -> DatasetReport:
    """Check the dataset under `key` with a mapping of columns; return the report."""
    with _local_copy(state, key) as path:
        return check_in_child(path, columns, **_limits(state))


def check_requests_blob(state: AppState, key: str) -> BatchReport:
    """Check the requests of a batch under `key`; return the report."""
    with _local_copy(state, key) as path:
        return check_requests_in_child(path, tuple(ENDPOINTS), **_limits(state))


def check_items_blob(
    state: AppState,
    key: str,
    schema: Mapping[str, Any] | None = None,
    *,
    needs_sample: bool = False,
) -> EvalFileReport:
    """Check the items of evals under `key`, with a JSON schema if there is one."""
    with _local_copy(state, key) as path:
        return check_items_in_child(path, schema, needs_sample=needs_sample, **_limits(state))


def check_adapter_blob(state: AppState, key: str, filename: str) -> AdapterReport:
    """Check the adapter, or the file of one, under `key`; return the report."""
    with _local_copy(state, key) as path:
        return check_adapter_in_child(path, filename, _limits(state))


def schema_fault(state: AppState, schema: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the JSON schema of the items of an eval; None if nothing is."""
    with check_slot(state.uploads):
        return schema_fault_in_child(schema, **_limits(state))


@contextmanager
def _local_copy(state: AppState, key: str) -> Iterator[Path]:
    # In the storage folder, large files are linked instead of copied. With S3, the file is
    # downloaded to the system's temporary folder.
    with TemporaryDirectory(prefix=".checking-", dir=state.settings.storage_folder) as folder:
        path = Path(folder) / "dataset.jsonl"
        state.store.fetch(key, path)
        yield path


def _limits(state: AppState) -> Limits:
    settings = state.settings
    return Limits(
        memory_bytes=settings.check_memory_bytes, timeout_seconds=settings.check_timeout_seconds
    )


@contextmanager
def check_slot(slots: CapacityLimiter) -> Iterator[None]:
    """Hold one of the check slots, from a handler's thread; Unavailable if all are in use.

    Uploads share the slots, because each check is a child process with its own memory.
    """
    holder = object()
    try:
        from_thread.run_sync(slots.acquire_on_behalf_of_nowait, holder)
    except WouldBlock:
        raise Unavailable(
            f"{int(slots.total_tokens)} files are being checked already; try again later.",
            code="too_many_uploads",
        ) from None
    try:
        yield
    finally:
        from_thread.run_sync(slots.release_on_behalf_of, holder)
