"""The cores of a run: all of them while the engine is idle, half of them while it is not.

Its threads move to other cores, and their number stays: some kernels round differently with another
number of threads, so the weights of a run would depend on the moments of the engine's requests.
"""

import logging
import os
import random
from contextlib import suppress
from threading import Event, Thread

import torch

from core.busy_file import BusyFile
from core.cores import usable_cores
from core.spec.making import MakingRequest
from core.spec.run_request import RunRequest

logger = logging.getLogger(__name__)

SHARE_OF_A_THREAD = 1 << 16
"""Numbers per thread, so many that torch distributes them over all threads."""


def cores_of(request: RunRequest | MakingRequest) -> "RunCores":
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
        self._second_team = SecondTeam()

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
            return
        self._used = wanted
        if wanted == self._few:
            self._second_team.assemble()
        else:
            self._second_team.dismiss()


class SecondTeam:
    """OpenMP threads without work, which make the waiting threads of the run sleep at once.

    On cores of their own, a run's threads should spin while they wait for each other; where two
    share a core, that takes more than half of the run's speed. libgomp reads the turns only once,
    but spins hardly while a process has more of its threads than cores (GCC's manual,
    GOMP_SPINCOUNT). Each thread that computes has a team of its own, so a second one is enough.
    """

    def __init__(self) -> None:
        self._dismissed = Event()
        self._leader: Thread | None = None

    def assemble(self) -> None:
        """Start the team; does nothing if it exists."""
        if self._leader is None:
            assembled = Event()
            self._dismissed.clear()
            self._leader = Thread(target=self._lead, args=(assembled,), daemon=True)
            self._leader.start()
            assembled.wait()

    def dismiss(self) -> None:
        """End the team."""
        if self._leader is not None:
            self._dismissed.set()
            self._leader.join()
            self._leader = None

    def _lead(self, assembled: Event) -> None:
        torch.ones(SHARE_OF_A_THREAD * torch.get_num_threads()).exp_()  # starts the threads
        assembled.set()
        self._dismissed.wait()


def _place_threads(cores: set[int]) -> None:
    """Restrict every thread of this process to `cores`; later threads inherit it."""
    placed: set[str] = set()
    while new := set(os.listdir("/proc/self/task")) - placed:
        for thread in new:
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(int(thread), cores)
        placed |= new
