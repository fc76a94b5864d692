"""One process in a sandbox: started, asked once, and ended without a trace."""

import os
import re
import select
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from core.sandbox.commands import Kind, command, opening, part
from core.sandbox.image import image
from core.sandbox.inside.confine import SIGNALLED
from core.sandbox.inside.main import BEGUN, READY
from core.sandbox.limits import Limits

START_SECONDS = 30.0
"""For the sandbox to be ready, on a busy machine. The grader's own time begins then."""

_GRACE_SECONDS = 0.25  # between the end of the output and the end of the process
_END_SECONDS = 10.0
_LONGEST_PROBLEM = 4000
_PROCESS = re.compile(rb'"child-pid": *(\d+)')
_MOST_LIKELY_VICTIM = b"1000"  # of the kernel, when the machine's memory is exhausted


class SandboxBroken(Exception):
    """The sandbox could not be set up. The grader did not run."""


class TimedOut(Exception):
    """The time for an answer is over."""


@dataclass(frozen=True)
class Ending:
    """How a process ended."""

    exit_code: int
    signal: int
    """0 if it ended by itself."""
    cpu_seconds: float


class SandboxedProcess:
    """A context: everything inside has ended at its exit, whatever happened."""

    def __init__(self, kind: Kind, limits: Limits) -> None:
        """Raises what `command`, `image` and `opening` raise."""
        self._limits = limits
        self._inside: int | None = None
        self._ended = False
        self.ending: Ending | None = None
        # The process has both ends, so that its report never fails when we are gone.
        self._report, report_to = os.pipe()
        os.set_blocking(self._report, False)
        try:
            self._opening = opening(kind, image(), limits, report_to)
            self._outer = subprocess.Popen(
                command(kind, image(), report_to),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={},
                cwd="/",
                pass_fds=(self._report, report_to),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._report)
            raise
        finally:
            os.close(report_to)

    def __enter__(self) -> Self:
        """Wait until the sandbox is ready. Raises SandboxBroken."""
        deadline = time.monotonic() + START_SECONDS
        try:
            _offer_to_the_kernel(self._outer.pid)
            self._expect(BEGUN, deadline)
            self._read_report()
            if self._inside is not None:
                _offer_to_the_kernel(self._inside)
            self._send(self._opening, deadline)
            self._expect(READY, deadline)
            self._read_report()
        except BaseException as error:
            self._end()
            if isinstance(error, TimedOut):
                raise SandboxBroken(f"not ready after {START_SECONDS:g} seconds") from None
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def ask(self, request: object) -> bytes:
        """Send a request and return the answer, empty if the process ended without one.

        At most one byte more than the limit of the output is read. Raises TimedOut.
        """
        deadline = time.monotonic() + self._limits.wall_seconds
        self._send(part(request), deadline)
        answer = self._some_output(self._limits.output_bytes + 1, deadline)
        self._ended = len(answer) <= self._limits.output_bytes
        return answer

    def _send(self, data: bytes, deadline: float) -> None:
        """Write to the standard input. A reader that is gone is noticed when its output ends."""
        assert self._outer.stdin is not None
        descriptor = self._outer.stdin.fileno()
        os.set_blocking(descriptor, False)
        left = memoryview(data)
        with suppress(BrokenPipeError):
            while left:
                _wait(descriptor, select.POLLOUT, deadline)
                left = left[os.write(descriptor, left) :]

    def _some_output(self, most: int, deadline: float) -> bytes:
        assert self._outer.stdout is not None
        return _read(self._outer.stdout.fileno(), most, deadline)

    def _expect(self, sign: bytes, deadline: float) -> None:
        """Read one byte. Anything else is the beginning of what went wrong."""
        if self._some_output(1, deadline) == sign:
            return
        assert self._outer.stderr is not None
        said = self._some_output(_LONGEST_PROBLEM, deadline)
        said = said or _read(self._outer.stderr.fileno(), _LONGEST_PROBLEM, deadline)
        text = said.decode(errors="replace").strip()
        raise SandboxBroken(text or "the process ended without a message")

    def _read_report(self) -> None:
        """Learn which process is inside, if there is one."""
        with suppress(BlockingIOError):
            found = _PROCESS.search(os.read(self._report, 1024))
            if found:
                self._inside = int(found[1])

    def _end(self) -> None:
        """Wait for a process that has ended, kill any other, and wait until nothing is left.

        Its parent outside ends after it, and its namespace ends with it.
        """
        if not self._has_ended_after(_GRACE_SECONDS if self._ended else 0):
            self._read_report()
            # Its number is its own as long as its parent, which collects it, has not ended.
            if self._inside is not None:
                with suppress(ProcessLookupError):
                    os.kill(self._inside, signal.SIGKILL)
            if self._inside is None or not self._has_ended_after(_END_SECONDS):
                os.kill(self._outer.pid, signal.SIGKILL)
                self._has_ended_after(_END_SECONDS)
        os.close(self._report)
        for stream in (self._outer.stdin, self._outer.stdout, self._outer.stderr):
            assert stream is not None
            stream.close()

    def _has_ended_after(self, seconds: float) -> bool:
        """Collect the parent outside. Its times include those of the process inside."""
        deadline = time.monotonic() + seconds
        pause = 0.0005
        while self._outer.returncode is None:
            process, status, usage = os.wait4(self._outer.pid, os.WNOHANG)
            if process:
                self._note(status, usage.ru_utime + usage.ru_stime)
                break
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.01)
        return True

    def _note(self, status: int, cpu_seconds: float) -> None:
        code = os.waitstatus_to_exitcode(status)
        self._outer.returncode = code  # so that subprocess does not look for it
        number = -code if code < 0 else max(0, code - SIGNALLED)
        self.ending = Ending(code, number, cpu_seconds)


def _wait(descriptor: int, event: int, deadline: float) -> None:
    waiting = select.poll()
    waiting.register(descriptor, event)
    left = deadline - time.monotonic()
    if left <= 0 or not waiting.poll(left * 1000):
        raise TimedOut


def _read(descriptor: int, most: int, deadline: float) -> bytes:
    """Read until the end, or `most` bytes."""
    parts: list[bytes] = []
    while most > 0:
        _wait(descriptor, select.POLLIN, deadline)
        found = os.read(descriptor, min(most, 65536))
        if not found:
            break
        parts.append(found)
        most -= len(found)
    return b"".join(parts)


def _offer_to_the_kernel(process: int) -> None:
    """Let the kernel kill a grader first, not the service, when memory is exhausted.

    Processes that it makes later inherit this.
    """
    with suppress(OSError), open(f"/proc/{process}/oom_score_adj", "wb") as file:
        file.write(_MOST_LIKELY_VICTIM)
