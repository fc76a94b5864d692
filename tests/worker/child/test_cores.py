"""Which cores a run uses."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import linear

from core.busy_file import BusyFile
from core.spec.job import JobSpec
from core.spec.run_request import RunRequest
from core.spec.workspace import Workspace
from worker.child.cores import RunCores, cores_of

ALL = os.sched_getaffinity(0)
FEW = set(sorted(ALL)[: max(1, len(ALL) // 2)])


@pytest.fixture(autouse=True)
def same_process_afterwards() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    place(ALL)


def place(cores: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread), cores)


def cores_in_use() -> list[set[int]]:
    """Return the cores of every thread, each set once."""
    used: list[set[int]] = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has just ended
            cores = os.sched_getaffinity(int(thread))
            if cores not in used:
                used.append(cores)
    return used


def test_an_engine_that_computes_gets_its_cores_at_once(tmp_path: Path) -> None:
    engine, cores = (
        BusyFile(tmp_path / "busy"),
        RunCores(ALL, len(ALL), BusyFile(tmp_path / "busy")),
    )
    torch.set_num_threads(2)
    torch.ones(1 << 20).exp()  # starts the second thread
    cores.follow()
    assert cores_in_use() == [ALL]
    engine.mark()
    cores.follow()
    assert cores_in_use() == [FEW]
    assert torch.get_num_threads() == 2
    engine.unmark()
    cores.follow()
    assert cores_in_use() == [ALL]


def test_a_run_that_begins_beside_a_busy_engine_leaves_it_cores_from_the_start(
    tmp_path: Path,
) -> None:
    BusyFile(tmp_path / "busy").mark()
    path = tmp_path / "busy"
    cores_of(RunRequest(a_job(), Workspace(folder=tmp_path), threads=None, engine_busy_file=path))
    assert cores_in_use() == [FEW]


def test_a_run_goes_on_where_its_threads_cannot_be_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine, cores = (
        BusyFile(tmp_path / "busy"),
        RunCores(ALL, len(ALL), BusyFile(tmp_path / "busy")),
    )

    def refuse(thread: int, cores: set[int]) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_setaffinity", refuse)
        for change in (engine.mark, engine.unmark, engine.mark):
            change()
            cores.follow()
    assert caplog.text.count("cannot leave cores to the engine") == 1
    assert cores_in_use() == [ALL]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cores_change_no_result(tmp_path: Path, dtype: torch.dtype) -> None:
    """These products are among those that another number of threads rounds differently."""
    engine, cores = (
        BusyFile(tmp_path / "busy"),
        RunCores(ALL, len(ALL), BusyFile(tmp_path / "busy")),
    )
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    shapes = [(33, 1024, 384), (64, 1024, 384), (100, 1024, 384), (257, 1536, 576)]
    operands = [
        [torch.randn(size, inner, generator=generator) for size in (rows, outer)]
        for rows, inner, outer in shapes
    ]
    found = []
    for change in (lambda: None, engine.mark, engine.unmark):
        change()
        cores.follow()
        found.append([linear(a.to(dtype), b.to(dtype)) for a, b in operands])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("busy_file", [None, "busy"])
def test_a_number_that_an_operator_has_set_is_kept(tmp_path: Path, busy_file: str | None) -> None:
    path = tmp_path / busy_file if busy_file else None
    request = RunRequest(a_job(), Workspace(folder=tmp_path), threads=3, engine_busy_file=path)
    cores = cores_of(request)
    BusyFile(tmp_path / "busy").mark()
    cores.follow()
    assert torch.get_num_threads() == 3
    assert cores_in_use() == [ALL]


def test_a_run_has_a_thread_for_every_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = RunRequest(a_job(), Workspace(folder=tmp_path), threads=None)
    beside = replace(request, engine_busy_file=tmp_path / "busy")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for each in (request, beside):
        torch.set_num_threads(1)
        cores_of(each).follow()
        assert torch.get_num_threads() == 4


def test_under_a_quota_a_run_has_fewer_threads_and_leaves_any_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other containers have the same cores, so the first ones are no better than others."""
    monkeypatch.setattr("worker.child.cores.usable_cores", lambda: 1)
    path = tmp_path / "busy"
    request = RunRequest(a_job(), Workspace(folder=tmp_path), threads=None, engine_busy_file=path)
    run_cores = cores_of(request)
    assert torch.get_num_threads() == 1
    assert cores_in_use() == [ALL]
    BusyFile(path).mark()
    run_cores.follow()
    [used] = cores_in_use()
    assert len(used) == 1


def test_threads_that_share_a_core_outnumber_the_cores_and_do_not_spin(tmp_path: Path) -> None:
    engine, path = BusyFile(tmp_path / "busy"), tmp_path / "busy"
    torch.set_num_threads(2)
    torch.ones(1 << 18).exp_()
    before = len(os.listdir("/proc/self/task"))
    cores = RunCores(ALL, len(ALL), BusyFile(path))
    for _ in range(2):
        engine.mark()
        cores.follow()
        cores.follow()
        assert len(os.listdir("/proc/self/task")) == before + 2  # a leader and one more
        engine.unmark()
        cores.follow()
        deadline = time.monotonic() + 10  # libgomp ends its threads after their leader
        while len(os.listdir("/proc/self/task")) > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(os.listdir("/proc/self/task")) == before


def a_job() -> JobSpec:
    return JobSpec.model_validate({"base": {"id": "tiny", "source": "/tiny"}, "seed": 1})
