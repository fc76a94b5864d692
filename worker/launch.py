"""Starts training children quickly, by forking them from a server that has imported torch.

The server (`multiprocessing`'s forkserver) imports `worker.child.preload` once, in 5 to 10 s, and
this module, which every child needs first. It ends after the worker and its children. This module
never imports torch, and neither does any other code of the worker outside its children; only the
child imports `worker.child.main`.
"""

import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from core.spec.calibration import Calibration
from core.spec.dry_run import DryRunResult
from core.spec.events import MaskAudited, RunFailed
from core.spec.export_steps import ExportStep, StepResult
from core.spec.making import MadeBundle, MakingRequest
from core.spec.run_request import RunRequest
from worker.coroutines import CHECK_SECONDS, Interrupted

Answer = TypeVar("Answer")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["worker.child.preload", __name__])

LOG_TAIL_BYTES = 2000

_dry_run_adapter: TypeAdapter[DryRunResult | RunFailed] = TypeAdapter(DryRunResult | RunFailed)
_making_adapter: TypeAdapter[MadeBundle | RunFailed] = TypeAdapter(MadeBundle | RunFailed)
_audit_adapter: TypeAdapter[MaskAudited | RunFailed] = TypeAdapter(MaskAudited | RunFailed)
_step_adapter: TypeAdapter[StepResult | RunFailed] = TypeAdapter(StepResult | RunFailed)


@dataclass(frozen=True)
class Child:
    """A running child. `events` receives one JSON message per RunEvent, then raises EOFError."""

    process: ForkServerProcess
    events: Connection
    log_file: Path

    def ask_to_stop(self) -> None:
        """Ask the run to stop before its next micro-batch."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the child and its process group. Any thread may call this, any number of times."""
        self._signal(signal.SIGKILL)

    def wait(self) -> int:
        """Wait until the child has ended; return its exit status, negative for a signal."""
        self.process.join()
        status = self.process.exitcode
        assert status is not None
        return status

    def _signal(self, number: signal.Signals) -> None:
        pid = self.process.pid
        if pid is None or connection.wait([self.process.sentinel], timeout=0):
            return  # it has ended, and its process id may be reused
        with suppress(ProcessLookupError):
            try:
                os.killpg(pid, number)
            except ProcessLookupError:  # it has not created its group yet
                os.kill(pid, number)

    def log_tail(self) -> str:
        """Return the end of the child's log."""
        with suppress(FileNotFoundError):
            return self.log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return ""


def launch(request: RunRequest) -> Child:
    """Start a child that runs one job."""
    process, events = _start("run", request)
    return Child(process, events, request.log_file)


def ask_for_audit(
    request: RunRequest, timeout_seconds: float, should_stop: Callable[[], bool]
) -> MaskAudited | RunFailed:
    """Let a child compute the masks of the first rows of the request's training file.

    Kills the child and raises Interrupted once `should_stop` is true.
    """
    process, answer = _start("audit", request)
    child = Child(process, answer, request.log_file)
    give_up_at = time.monotonic() + timeout_seconds
    try:
        while not should_stop():
            if answer.poll(CHECK_SECONDS):
                return _audit_adapter.validate_json(answer.recv_bytes())
            if time.monotonic() > give_up_at:
                message = "The rows could not be read within {:.0f} s. Shorten or split long rows."
                return RunFailed(code="audit_failed", message=message.format(timeout_seconds))
        raise Interrupted
    except EOFError:
        message = f"The process that read the rows died. {child.log_tail()}".strip()
        return RunFailed(code="audit_failed", message=message)
    finally:
        child.kill()
        child.wait()


def ask_for_calibration(threads: int | None, should_stop: Callable[[], bool]) -> Calibration | None:
    """Let a child measure the device; None if `should_stop` ended it, or if it died."""
    process, answer = _start("calibrate", threads)
    try:
        while not should_stop():
            if answer.poll(CHECK_SECONDS):
                return Calibration.model_validate_json(answer.recv_bytes())
        return None
    except EOFError:
        return None
    finally:
        process.kill()
        process.join()


def ask_for_dry_run(
    request: RunRequest, should_stop: Callable[[], bool]
) -> DryRunResult | RunFailed:
    """Let a child run two steps of a job and measure them.

    Kills the child and raises Interrupted once `should_stop` is true; so do the next two.
    """
    child = _child("dry_run", request.log_file, request)
    return _answer_of(child, _dry_run_adapter, "dry_run_failed", "of the dry run", should_stop)


def ask_for_export_step(
    step: ExportStep, threads: int, log_file: Path, should_stop: Callable[[], bool]
) -> StepResult | RunFailed:
    """Let a child run one step of an export."""
    child = _child("export", log_file, step, threads, log_file)
    return _answer_of(child, _step_adapter, "export_failed", "of the export", should_stop)


def ask_for_bundle(
    request: MakingRequest, should_stop: Callable[[], bool]
) -> MadeBundle | RunFailed:
    """Let a child make a bundle without a job, and run PEFT on some rows."""
    child = _child("make_bundle", request.log_file, request)
    noun = "that loads the adapter"
    return _answer_of(child, _making_adapter, "making_failed", noun, should_stop)


def _answer_of(
    child: Child,
    adapter: TypeAdapter[Answer],
    failed_code: str,
    noun: str,
    should_stop: Callable[[], bool],
) -> Answer | RunFailed:
    """Wait for the only message of a child. Its death is a RunFailed, with the end of its log."""
    try:
        while not should_stop():
            if child.events.poll(CHECK_SECONDS):
                return adapter.validate_json(child.events.recv_bytes())
        raise Interrupted
    except EOFError:
        status = child.wait()
        killed = "was killed; the machine may have run out of memory" if status < 0 else "died"
        return RunFailed(
            code="does_not_fit" if status == -signal.SIGKILL else failed_code,
            message=f"The process {noun} {killed}. {child.log_tail()}".strip(),
        )
    finally:
        child.kill()
        child.wait()


def _child(function: str, log_file: Path, *arguments: object) -> Child:
    process, answer = _start(function, *arguments)
    return Child(process, answer, log_file)


def warm_up() -> str:
    """Start the server, wait for its imports, and return the name of the training device."""
    process, answer = _start("describe_device")
    try:
        return answer.recv_bytes().decode()
    except EOFError:
        raise RuntimeError("The training child cannot start; see the log above.") from None
    finally:
        process.join()


def _start(function: str, *arguments: object) -> tuple[ForkServerProcess, Connection]:
    reading_end, writing_end = _context.Pipe(duplex=False)
    process = _context.Process(target=_enter, args=(function, writing_end, *arguments))
    process.start()
    # With this copy closed, the pipe ends when the child ends.
    writing_end.close()
    return process, reading_end


def _enter(function: str, writing_end: Connection, *arguments: object) -> None:
    getattr(importlib.import_module("worker.child.main"), function)(writing_end, *arguments)
