"""The supervisor's hold on one process, tried with modules of a line or two."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cli.process import FIRST_PAUSE_SECONDS, Process
from tests.processes import is_alive
from tests.worker.workshop import ROOT, wait_until


@pytest.fixture
def make_process(tmp_path: Path) -> Callable[[str], Process]:
    def make(code: str) -> Process:
        (tmp_path / "victim.py").write_text(code)
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return Process("victim", "victim", lambda: environment, tmp_path / "victim.log")

    return make


def test_dead_process_starts_again_after_a_pause_that_grows(
    make_process: Callable[[str], Process], tmp_path: Path
) -> None:
    process = make_process("print('born', flush=True); raise SystemExit(3)")
    process.start()
    pauses = []
    for _ in range(3):
        began = time.monotonic()
        wait_until(lambda: process.notice_death() == 3, "it dies")
        wait_until(lambda: process.start_when_due() or process.is_running, "it starts again")
        pauses.append(time.monotonic() - began)
    # a busy machine makes pauses longer, never shorter
    for pause, least in zip(pauses, (1, 2, 4), strict=True):
        assert pause >= least * FIRST_PAUSE_SECONDS
    process.wait_or_kill(time.monotonic() + 10)
    assert (tmp_path / "victim.log").read_text().count("born") == 4


def test_process_that_ignores_the_request_is_killed_with_its_group(
    make_process: Callable[[str], Process], tmp_path: Path
) -> None:
    process = make_process(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    process.start()
    log = tmp_path / "victim.log"
    wait_until(lambda: log.read_text().endswith("\n"), "it has a child")
    grandchild = psutil.Process(int(log.read_text()))
    process.ask_to_stop()
    assert process.wait_or_kill(time.monotonic() + 0.2)
    wait_until(lambda: not is_alive(grandchild), "its child is gone too")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help exists on Linux only")
def test_nothing_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "victim.py").write_text("import time; time.sleep(600)")
    supervisor = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, pathlib, sys, time\n"
            "from cli.process import Process\n"
            "log = pathlib.Path(sys.argv[1])\n"
            "process = Process('victim', 'victim', lambda: dict(os.environ), log)\n"
            "process.start()\n"
            "print(process.pid, flush=True)\n"
            "time.sleep(600)\n",
            str(tmp_path / "victim.log"),
        ],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    child = psutil.Process(int(supervisor.stdout.readline()))
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    supervisor.stdout.close()
    wait_until(lambda: not is_alive(child), "it is gone too")
