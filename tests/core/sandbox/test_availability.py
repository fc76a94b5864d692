"""What a machine says that has a sandbox, and one that refuses."""

import logging
import os
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from core.sandbox.availability import availability, log_availability, problem_with

ROOT = Path(__file__).parents[3]


@cache
def refusing(path: str | None = None) -> list[str]:
    """Ask a process that may not make namespaces."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.core.sandbox.machines", "refusing"],
        cwd=ROOT,
        env=os.environ if path is None else {**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_machine_that_refuses_says_so_and_what_to_do() -> None:
    kind, reason, error, message = refusing()
    assert kind == "None"
    assert "namespaces: PermissionError" in reason and "unshare" in reason
    assert "To run Python graders: let the seccomp filter" in reason
    assert "docs/operations.md" in reason
    assert error == "InvalidRequest sandbox_unavailable"
    assert message.startswith("This machine cannot run Python graders") and reason in message


def test_bubblewrap_is_named_where_it_is_missing(tmp_path: Path) -> None:
    reason = refusing(str(tmp_path))[1]
    assert "bubblewrap: The program bwrap is not installed" in reason
    assert "install bubblewrap" in reason


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")
def test_complaint_of_bubblewrap_is_quoted() -> None:
    assert "bubblewrap: bwrap: " in refusing()[1]


def test_bubblewrap_is_preferred() -> None:
    found = availability()
    usable = [kind for kind in ("bubblewrap", "namespaces") if problem_with(kind) is None]
    assert found.kind == (usable[0] if usable else None)
    assert found.reason
    assert availability() is found


def test_processes_log_what_their_machine_allows(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "core.sandbox.availability"):
        log_availability()
        deadline = time.monotonic() + 30
        while availability().reason not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
    assert availability().reason in caplog.text
