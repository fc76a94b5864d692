"""The CPU threads of a run: every core while the engine is idle, its share while it is not.

The number of threads changes no result, so a run can try what is faster: small models lose by
threads, because their operations are too short to divide.
"""

import os
from dataclasses import dataclass, field

import torch

from core.busy_file import BusyFile
from core.spec.events import StepDone
from core.spec.run_request import RunRequest

WARM_UP_STEPS = 1
"""Steps that are not compared; the first one makes the kernels of its lengths."""
CLEARLY_FASTER = 1.3
PAIRS = 3
"""Steps compared with each number of threads, if none is clearly faster before."""


@dataclass
class _Pace:
    """The measured steps with one number of threads."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def threads_of(request: RunRequest) -> "RunThreads":
    """Return the threads of a run, set to its share."""
    cores = len(os.sched_getaffinity(0))
    path = request.engine_busy_file
    if request.threads or path is None:
        threads = RunThreads(request.threads or cores, request.threads or cores, None)
    else:
        threads = RunThreads(max(1, cores // 2), cores, BusyFile(path))
    torch.set_num_threads(threads.share)
    return threads


@dataclass
class RunThreads:
    """Sets torch's threads before every micro-batch.

    `share`: the threads while the engine computes. `all`: those while it is idle, unless fewer
    are faster. `engine` None: another process is never looked at, and `share` is used throughout.
    """

    share: int
    all: int
    engine: BusyFile | None
    _alone: int = field(init=False)
    _is_chosen: bool = False
    _steps: int = 0
    _was_disturbed: bool = False
    """Whether the engine has computed during this step."""
    _paces: dict[int, _Pace] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._alone = self.all
        self._is_chosen = self.engine is None or self.all <= self.share
        self._paces = {self.all: _Pace(), self.share: _Pace()}

    def follow(self) -> None:
        """Set the number of threads for the next micro-batch."""
        is_busy = self.engine is not None and self.engine.is_marked_by_another()
        self._was_disturbed |= is_busy
        wanted = self.share if is_busy or self.engine is None else self._alone
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)

    def note(self, step: StepDone) -> None:
        """Compare the speeds of the first undisturbed steps, until the faster number is known."""
        was_disturbed, self._was_disturbed = self._was_disturbed, False
        self._steps += 1
        if self._is_chosen or was_disturbed or self._steps <= WARM_UP_STEPS:
            return
        pace = self._paces[self._alone]
        pace.steps += 1
        pace.tokens += step.tokens
        pace.seconds += step.seconds
        few, many = self._paces[self.share], self._paces[self.all]
        self._alone = self.share if few.steps < many.steps else self.all
        if few.steps and few.steps == many.steps:
            gain = many.tokens_per_second / few.tokens_per_second
            is_clear = gain >= CLEARLY_FASTER or gain <= 1 / CLEARLY_FASTER
            if is_clear or few.steps == PAIRS:
                self._alone = self.all if gain > 1 else self.share
                self._is_chosen = True
