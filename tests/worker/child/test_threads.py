"""How many threads a run uses."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.busy_file import BusyFile
from core.spec.events import StepDone
from core.spec.job import JobSpec
from core.spec.run_request import RunRequest
from core.spec.workspace import Workspace
from worker.child.threads import RunThreads, threads_of


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def take_steps(threads: RunThreads, speeds: dict[int, float], steps: int) -> list[int]:
    """Return the threads of each step, which compute `speeds` tokens per second."""
    used = []
    for number in range(1, steps + 1):
        threads.follow()
        used.append(torch.get_num_threads())
        threads.note(step(number, seconds=100 / speeds[used[-1]]))
    return used


def step(number: int, seconds: float) -> StepDone:
    return StepDone(
        step=number,
        total_steps=100,
        epoch=1,
        loss=1.0,
        accuracy=0.5,
        learning_rate=1e-4,
        gradient_norm=1.0,
        tokens=100,
        targets=50,
        seconds=seconds,
    )


def test_all_cores_are_used_where_they_are_faster(tmp_path: Path) -> None:
    threads = RunThreads(2, 4, BusyFile(tmp_path / "busy"))
    assert take_steps(threads, {2: 10, 4: 17}, 6) == [4, 4, 2, 4, 4, 4]


def test_a_small_model_runs_on_fewer(tmp_path: Path) -> None:
    threads = RunThreads(2, 4, BusyFile(tmp_path / "busy"))
    assert take_steps(threads, {2: 10, 4: 5}, 6) == [4, 4, 2, 2, 2, 2]


def test_speeds_that_are_close_are_compared_longer(tmp_path: Path) -> None:
    threads = RunThreads(2, 4, BusyFile(tmp_path / "busy"))
    assert take_steps(threads, {2: 10, 4: 9}, 10) == [4, 4, 2, 4, 2, 4, 2, 2, 2, 2]


def test_an_engine_that_computes_gets_its_cores_at_once(tmp_path: Path) -> None:
    engine, threads = BusyFile(tmp_path / "busy"), RunThreads(2, 4, BusyFile(tmp_path / "busy"))
    threads.follow()
    assert torch.get_num_threads() == 4
    engine.mark()
    threads.follow()
    assert torch.get_num_threads() == 2
    engine.unmark()
    threads.follow()
    assert torch.get_num_threads() == 4


def test_steps_beside_the_engine_are_not_compared(tmp_path: Path) -> None:
    engine, threads = BusyFile(tmp_path / "busy"), RunThreads(2, 4, BusyFile(tmp_path / "busy"))
    take_steps(threads, {2: 10, 4: 17}, 2)
    engine.mark()
    assert take_steps(threads, {2: 1, 4: 1}, 3) == [2, 2, 2]
    engine.unmark()
    assert take_steps(threads, {2: 10, 4: 17}, 3) == [2, 4, 4]


@pytest.mark.parametrize("busy_file", [None, "busy"])
def test_a_number_that_an_operator_has_set_is_kept(tmp_path: Path, busy_file: str | None) -> None:
    path = tmp_path / busy_file if busy_file else None
    request = RunRequest(a_job(), Workspace(folder=tmp_path), threads=3, engine_busy_file=path)
    assert take_steps(threads_of(request), {3: 1}, 3) == [3, 3, 3]


def test_a_run_without_an_engine_uses_all_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    request = RunRequest(a_job(), Workspace(folder=tmp_path), threads=None)
    assert take_steps(threads_of(request), {4: 1}, 3) == [4, 4, 4]
    beside = replace(request, engine_busy_file=tmp_path / "busy")
    assert take_steps(threads_of(beside), {2: 10, 4: 17}, 4) == [4, 4, 2, 4]


def a_job() -> JobSpec:
    return JobSpec.model_validate({"base": {"id": "tiny", "source": "/tiny"}, "seed": 1})
