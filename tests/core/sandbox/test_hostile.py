"""Hostile graders end within their bounds, touch nothing and leave nothing, in both sandboxes.

`host` checks files, sockets, processes and descriptors after each test.
"""

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.sandbox.commands import Kind
from core.sandbox.grading import run_in
from core.sandbox.limits import Limits
from core.spec.grader import PythonOutcome
from tests.core.sandbox.conftest import Host
from tests.core.sandbox.hostile_calls import CALLS, OLD_DOOR, SOCKETS, all_calls
from tests.core.sandbox.hostile_programs import (
    ATTACKS,
    ENDLESS,
    FAILS,
    SOURCES,
    TIME,
    VALUES,
    with_grade,
)

BOUND_SECONDS = 20.0  # of a busy machine; the limits below are shorter


def graded(kind: Kind, source: str, host: Host, limits: Limits) -> PythonOutcome:
    begun = time.monotonic()
    outcome = run_in(kind, source, {"output_text": "x"}, host.item, limits)
    assert time.monotonic() - begun < BOUND_SECONDS
    assert outcome.error is None or len(outcome.error.encode()) <= limits.output_bytes
    return outcome


def expect(expected: str, kind: Kind, source: str, host: Host) -> None:
    limits = Limits(wall_seconds=0.4 if TIME in expected else 10.0, cpu_seconds=10)
    outcome = graded(kind, source, host, limits)
    if expected == FAILS:
        assert outcome == PythonOutcome(score=0)
    else:
        assert outcome.score is None
        assert re.search(expected, outcome.error or "", re.DOTALL), outcome.error


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name: str, kind: Kind, host: Host) -> None:
    body, expected = ATTACKS[name]
    expect(expected, kind, with_grade(body), host)


def test_attacks_that_only_a_limit_ends(kind: Kind, host: Host) -> None:
    def attack(name: str) -> None:
        body, expected = ENDLESS[name]
        expect(expected, kind, with_grade(body), host)

    with ThreadPoolExecutor(len(ENDLESS)) as pool:
        list(pool.map(attack, ENDLESS))


@pytest.mark.parametrize("name", VALUES)
def test_value_that_is_no_score(name: str, kind: Kind, host: Host) -> None:
    value, expected = VALUES[name]
    expect(expected, kind, with_grade(f"return {value}"), host)


@pytest.mark.parametrize("name", SOURCES)
def test_source(name: str, kind: Kind, host: Host) -> None:
    source, expected = SOURCES[name]
    expect(expected, kind, source, host)
    assert bool(host.processes) == (name != "too_long")  # which starts no process


@pytest.mark.parametrize("name", SOCKETS)
def test_socket(name: str, kind: Kind, host: Host) -> None:
    expect("PermissionError|gaierror", kind, with_grade(SOCKETS[name] + "\nreturn 1"), host)


def test_system_calls(kind: Kind, host: Host) -> None:
    assert graded(kind, all_calls(), host, Limits()) == PythonOutcome(score=len(CALLS))


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the 32-bit door of x86_64")
def test_call_of_the_32_bit_kernel(kind: Kind, host: Host) -> None:
    expect(r"signal 31", kind, OLD_DOOR, host)


def test_time_of_the_processor_is_bounded_for_all_threads(kind: Kind, host: Host) -> None:
    limits = Limits(wall_seconds=15, cpu_seconds=1)
    body = "def spin():\n while True: pass\n"
    body += "for _ in range(4): threading.Thread(target=spin, daemon=True).start()\nspin()"
    outcome = graded(kind, with_grade(body), host, limits)
    assert outcome.error == "The grader exceeded the limit of 1 seconds of CPU time."
