"""Starts, watches, restarts with backoff, and stops one process of the service.

Every process has its own session, so that Ctrl-C reaches only `up`, which then stops the processes
in order. No process outlives `up`, even after `kill -9`: the kernel sends it SIGTERM when its
parent dies (`PR_SET_PDEATHSIG`, set between fork and exec). This needs no cooperation of the
process, and is available on Linux only.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""After a run of this length, a process restarts after the shortest pause."""

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Process:
    """A Python module that is restarted when it ends."""

    def __init__(
        self, name: str, module: str, environment: Callable[[], dict[str, str]], log_file: Path
    ) -> None:
        self.name = name
        self.log_file = log_file
        self._module = module
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at = 0.0
        self._pause_seconds = FIRST_PAUSE_SECONDS

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509  (this process has one thread)
            )
        self._started_at = time.monotonic()

    def notice_death(self) -> int | None:
        """Return the exit status once after the process ended, and schedule its restart."""
        status = None if self._process is None else self._process.poll()
        if status is None:
            return None
        self._process = None
        if time.monotonic() - self._started_at >= STEADY_SECONDS:
            self._pause_seconds = FIRST_PAUSE_SECONDS
        self._start_at = time.monotonic() + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
        return status

    def start_when_due(self) -> None:
        """Restart the process after its pause."""
        if self._process is None and time.monotonic() >= self._start_at:
            self.start()

    def ask_to_stop(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def wait_or_kill(self, deadline: float) -> bool:
        """Wait until `deadline` on the monotonic clock, then kill; return whether it was killed.

        Also kills the rest of its process group, such as a forkserver that is still importing.
        """
        if self._process is None:
            return False
        is_killed = False
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            is_killed = True
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return is_killed

    def log_tail(self, lines: int = 15) -> str:
        text = self.log_file.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def _die_with(parent: int) -> Callable[[], None]:
    def ask_kernel() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # the parent died before prctl
                os._exit(1)

    return ask_kernel
