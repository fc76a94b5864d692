"""The service is killed: its graders end with it, at whatever moment."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from core.sandbox.commands import Kind
from tests.processes import is_alive

ROOT = Path(__file__).parents[3]


def start(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.core.sandbox.machines", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


@pytest.mark.parametrize("victim", ["service", "parent"])
def test_grader_ends_with(victim: str, kind: Kind) -> None:
    with start("serving", kind) as service:
        assert service.stdout is not None
        inside, outer = (psutil.Process(int(word)) for word in service.stdout.readline().split())
        inner = [inside, *inside.children()]
        assert len(inner) == 2 and all(map(is_alive, inner))
        (psutil.Process(service.pid) if victim == "service" else outer).kill()
        assert eventually(lambda: not any(map(is_alive, inner)))
        assert eventually(lambda: not is_alive(outer))
        service.wait(timeout=10)


def test_nothing_is_left_at_whatever_moment_the_service_dies(kind: Kind) -> None:
    seed = random.randrange(1000)
    print(f"seed {seed}")
    with start("killing", kind, str(seed)) as killing:
        assert killing.stdout is not None
        assert int(killing.stdout.read()) > 0  # otherwise nothing was tested
    assert killing.returncode == 0
