"""The cores of a run: all of them while the engine is idle, half of them while it is not.

Its threads move to other cores, and their number stays: some kernels round differently with another
number of threads, so the weights of a run would depend on the moments of the engine's requests.
"""

import os
from contextlib import suppress
from pathlib import Path

import torch

from core.busy_file import BusyFile
from core.spec.run_request import RunRequest


def cores_of(request: RunRequest) -> "RunCores":
    """Return the cores of a run; torch has as many threads as the run may have."""
    cores = os.sched_getaffinity(0)
    torch.set_num_threads(request.threads or len(cores))
    if request.threads or request.engine_busy_file is None:
        return RunCores(cores, None)
    return RunCores(cores, BusyFile(request.engine_busy_file))


class RunCores:
    """Places all threads of this process. `engine` None: no engine is looked at."""

    def __init__(self, cores: set[int], engine: BusyFile | None) -> None:
        self._all = cores
        self._few = set(sorted(cores)[: max(1, len(cores) // 2)])
        self._used = cores
        self._engine = engine

    def follow(self) -> None:
        """Leave or take the other half of the cores, as the engine is busy or idle."""
        is_busy = self._engine is not None and self._engine.is_marked_by_another()
        wanted = self._few if is_busy else self._all
        if wanted != self._used:
            _place_threads(wanted)
            self._used = wanted


def _place_threads(cores: set[int]) -> None:
    """Restrict every thread of this process to `cores`; later threads inherit it."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread.name), cores)
