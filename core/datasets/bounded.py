"""Checking a file that a stranger sent: in a child process with limits of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from core.spec.dataset import DatasetReport, LineFault

_IMPORT_ROOT = Path(__file__).resolve().parents[2]
_CHECKER = ("-m", "core.datasets.check")
# The child parses hostile input: it has no business with our settings. Without these, pyarrow and
# what it loads reserve a gigabyte that counts as used.
_ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_GRACE_SECONDS = 5  # beyond its own limit, for a child that is stuck inside one line


def check_in_child(
    path: Path,
    columns: Mapping[str, str] = {},
    *,
    memory_bytes: int,
    timeout_seconds: float,
) -> DatasetReport:
    """Return the report of `core.datasets.check.check`, whatever the file does to the checker.

    A child that runs into its limits gives a report with a fault that says so. 256 MiB
    are enough for every line that is short enough to be read. Raises
    FileNotFoundError, and RuntimeError when the checker itself is broken.
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
        return _unchecked(f"checking took more than {timeout_seconds:g} seconds; split the file")
    if child.returncode < 0:
        return _unchecked(
            f"checking died of signal {-child.returncode}, at {memory_bytes >> 20} MiB of memory "
            f"and {timeout_seconds:g} seconds; shorten the longest rows or split the file"
        )
    if child.returncode > 0:
        last_words = child.stderr.decode(errors="replace")[-2000:]
        raise RuntimeError(f"The dataset checker failed on {path}:\n{last_words}")
    return DatasetReport.model_validate_json(child.stdout)


def _unchecked(message: str) -> DatasetReport:
    fault = LineFault(line=1, field=None, message=message)
    return DatasetReport(format=None, rows=0, faults=(fault,), fault_count=1)
