"""Checks an untrusted file in a child process with its own memory and time limits."""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypedDict

from core.spec.batch import BatchReport
from core.spec.dataset import DatasetReport, LineError
from core.spec.evals import EvalFileReport

_IMPORT_ROOT = Path(__file__).resolve().parents[2]
_CHECKER = ("-m", "core.datasets.check")
_REQUEST_CHECKER = ("-m", "core.datasets.requests")
_ITEM_CHECKER = ("-m", "core.datasets.eval_items")
# The child parses hostile input and gets none of our settings. Without these variables, pyarrow
# and its libraries reserve a gigabyte that counts against the memory limit.
_ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_GRACE_SECONDS = 5  # beyond the child's own limit, for a child stuck in one line


class Limits(TypedDict):
    """Of a check."""

    memory_bytes: int
    timeout_seconds: float


def check_in_child(
    path: Path,
    columns: Mapping[str, str] = {},
    *,
    memory_bytes: int,
    timeout_seconds: float,
) -> DatasetReport:
    """Run `core.datasets.check.check` in a child process and return its report.

    A child that exceeds its limits gives a report with an error that says so. 256 MiB are enough
    for every line within the length limit. Raises FileNotFoundError, and RuntimeError when the
    checker itself fails.
    """
    arguments = (*_CHECKER, "--columns", json.dumps(dict(columns)))
    try:
        report = output_of_child(arguments, path, memory_bytes, timeout_seconds)
    except Unchecked as error:
        return DatasetReport(format=None, rows=0, faults=(error.fault,), fault_count=1)
    return DatasetReport.model_validate_json(report)


def check_requests_in_child(
    path: Path, urls: Collection[str], *, memory_bytes: int, timeout_seconds: float
) -> BatchReport:
    """Run `core.datasets.requests.check_requests` in a child; limits and errors are the same."""
    arguments = (*_REQUEST_CHECKER, "--urls", json.dumps(list(urls)))
    try:
        report = output_of_child(arguments, path, memory_bytes, timeout_seconds)
    except Unchecked as error:
        return BatchReport(rows=0, faults=(error.fault,), fault_count=1)
    return BatchReport.model_validate_json(report)


def check_items_in_child(
    path: Path,
    schema: Mapping[str, Any] | None = None,
    *,
    needs_sample: bool = False,
    memory_bytes: int,
    timeout_seconds: float,
) -> EvalFileReport:
    """Run `core.datasets.eval_items.check_items` in a child; limits and errors are the same.

    The schema is the user's, and a pattern in it may take for ever: only the child evaluates it.
    """
    arguments = [*_ITEM_CHECKER, *(["--needs-sample"] if needs_sample else [])]
    if schema is not None:
        arguments += ["--schema", json.dumps(schema, ensure_ascii=False)]
    try:
        report = output_of_child(tuple(arguments), path, memory_bytes, timeout_seconds)
    except Unchecked as error:
        return EvalFileReport(rows=0, faults=(error.fault,), fault_count=1)
    return EvalFileReport.model_validate_json(report)


def schema_fault_in_child(
    schema: Mapping[str, Any], *, memory_bytes: int, timeout_seconds: float
) -> str | None:
    """Return what is wrong with the JSON schema of items; None if it can be used.

    Checking 64 KiB of small schemas takes ten seconds, which would block a process with streams.
    """
    text = json.dumps(schema, ensure_ascii=False)
    arguments = (*_ITEM_CHECKER, "--schema-only", "--schema", text)
    try:
        fault = json.loads(
            output_of_child(arguments, Path(os.devnull), memory_bytes, timeout_seconds)
        )
    except Unchecked:
        return (
            f"its check takes more than {timeout_seconds:g} seconds or too much memory; shorten it"
        )
    return None if fault is None else str(fault)


class Unchecked(Exception):
    """The child exceeded a limit; `fault` says which."""

    def __init__(self, message: str) -> None:
        self.fault = LineError(line=1, field=None, message=message)


def output_of_child(
    arguments: tuple[str, ...], path: Path, memory_bytes: int, timeout_seconds: float
) -> bytes:
    """Return what a checker prints; Unchecked if it exceeds a limit.

    `arguments` begin with `-m` and the module of the checker.
    """
    command = [
        *(sys.executable, *arguments, str(path.resolve(strict=True))),
        *("--memory-bytes", str(memory_bytes)),
        *("--seconds", str(timeout_seconds)),
    ]
    try:
        child = subprocess.run(
            command,
            cwd=_IMPORT_ROOT,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_seconds + _GRACE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unchecked(
            f"the check took more than {timeout_seconds:g} seconds; split the file"
        ) from None
    if child.returncode < 0:
        raise Unchecked(
            f"the check was killed by signal {-child.returncode} (limits: {memory_bytes >> 20} MiB "
            f"of memory, {timeout_seconds:g} seconds); shorten the longest rows or split the file"
        )
    if child.returncode > 0:
        stderr_tail = child.stderr.decode(errors="replace")[-2000:]
        raise RuntimeError(f"The dataset checker failed on {path}:\n{stderr_tail}")
    return child.stdout
