"""The cores of a run: all of them while the engine is idle, half of them while it is not.

Its threads move to other cores, and their number stays: some kernels round differently with another
number of threads, so the weights of a run would depend on the moments of the engine's requests.
"""

import logging
import os
import random
from contextlib import suppress

import torch

from core.busy_file import BusyFile
from core.cores import usable_cores
from core.spec.run_request import RunRequest

logger = logging.getLogger(__name__)


def cores_of(request: RunRequest) -> "RunCores":
    """Return the cores of a run; torch has as many threads as the run may have."""
    cores, usable = os.sched_getaffinity(0), usable_cores()
    torch.set_num_threads(request.threads or usable)
    if request.threads or request.engine_busy_file is None:
        return RunCores(cores, usable, None)
    run_cores = RunCores(cores, usable, BusyFile(request.engine_busy_file))
    run_cores.follow()
    return run_cores


class RunCores:
    """Places all threads of this process, which may use `usable` of its `cores` at a time.

    `engine` None: no engine is looked at.
    """

    def __init__(self, cores: set[int], usable: int, engine: BusyFile | None) -> None:
        self._all = cores
        half = max(1, usable // 2)
        if usable < len(cores):  # a quota: other containers have the same cores
            self._few = set(random.sample(sorted(cores), half))
        else:
            self._few = set(sorted(cores)[:half])
        self._used = cores
        self._engine = engine

    def follow(self) -> None:
        """Leave or take the other half of the cores, as the engine is busy or idle."""
        if self._engine is None:
            return
        wanted = self._few if self._engine.is_marked_by_another() else self._all
        if wanted == self._used:
            return
        try:
            _place_threads(wanted)
        except OSError as error:  # a sandbox forbids it, or the cores of the process have changed
            logger.warning("The run cannot leave cores to the engine: %s", error)
            self._engine = None
        self._used = wanted


def _place_threads(cores: set[int]) -> None:
    """Restrict every thread of this process to `cores`; later threads inherit it."""
    placed: set[str] = set()
    while new := set(os.listdir("/proc/self/task")) - placed:
        for thread in new:
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(int(thread), cores)
        placed |= new
