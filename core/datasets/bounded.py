"""Checking a file that a stranger sent: in a child process with limits of its own."""

import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from core.spec.dataset import DatasetReport, LineFault

_IMPORT_ROOT = Path(__file__).resolve().parents[2]
_GRACE_SECONDS = 5  # after its own limit, for a child that does not answer its signals


def check_in_child(path: Path, *, memory_bytes: int, timeout_seconds: float) -> DatasetReport:
    """Return the report of `core.datasets.check.check`, whatever the file does to the checker.

    A child that runs into its limits gives a report with a fault that says so. 256 MiB of
    address space are enough for every line that is short enough to be read.
    """
    command = [
        *(sys.executable, "-m", "core.datasets.check", str(path.resolve())),
        *("--memory-bytes", str(memory_bytes)),
        *("--seconds", str(max(1, round(timeout_seconds)))),
    ]
    try:
        child = subprocess.run(
            command,
            cwd=_IMPORT_ROOT,
            env={},  # the child parses hostile input: it has no business with our settings
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_seconds + _GRACE_SECONDS,
            check=False,
        )
        return DatasetReport.model_validate_json(child.stdout)
    except subprocess.TimeoutExpired:
        return _unchecked(f"checking took more than {timeout_seconds:g} seconds; split the file")
    except ValidationError:
        return _unchecked(
            f"the file could not be checked within {memory_bytes >> 20} MiB of memory; "
            "shorten its longest rows"
        )


def _unchecked(message: str) -> DatasetReport:
    fault = LineFault(line=1, field=None, message=message)
    return DatasetReport(format=None, rows=0, faults=(fault,), fault_count=1)
