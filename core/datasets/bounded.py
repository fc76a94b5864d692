"""Checks an untrusted file in a child process with its own memory and time limits."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from core.spec.dataset import DatasetReport, LineError

_IMPORT_ROOT = Path(__file__).resolve().parents[2]
_CHECKER = ("-m", "core.datasets.check")
# The child parses hostile input and gets none of our settings. Without these variables, pyarrow
# and its libraries reserve a gigabyte that counts against the memory limit.
_ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_GRACE_SECONDS = 5  # beyond the child's own limit, for a child stuck in one line


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
    command = [
        *(sys.executable, *_CHECKER, str(path.resolve(strict=True))),
        *("--columns", json.dumps(dict(columns))),
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
        return _unchecked(f"the check took more than {timeout_seconds:g} seconds; split the file")
    if child.returncode < 0:
        return _unchecked(
            f"the check was killed by signal {-child.returncode} (limits: {memory_bytes >> 20} MiB "
            f"of memory, {timeout_seconds:g} seconds); shorten the longest rows or split the file"
        )
    if child.returncode > 0:
        stderr_tail = child.stderr.decode(errors="replace")[-2000:]
        raise RuntimeError(f"The dataset checker failed on {path}:\n{stderr_tail}")
    return DatasetReport.model_validate_json(child.stdout)


def _unchecked(message: str) -> DatasetReport:
    error = LineError(line=1, field=None, message=message)
    return DatasetReport(format=None, rows=0, faults=(error,), fault_count=1)
