"""The CPU threads of a run: every core while the engine is idle, half of them while it is not.

The number of threads changes no result, so a run can try what is faster: small models lose by
threads, because their operations are too short to divide.
"""

import os
from dataclasses import dataclass

import torch

from core.busy_file import BusyFile
from core.spec.events import StepDone
from core.spec.run_request import RunRequest

WARM_UP_STEPS = 1
"""Steps that are not compared; the first one makes the kernels of its lengths."""
CLEARLY_FASTER = 1.3
PAIRS = 3
"""Steps compared with each number of threads, if none is clearly faster before."""


def threads_of(request: RunRequest) -> "RunThreads":
    """Return the threads of a run; torch has them."""
    cores = len(os.sched_getaffinity(0))
    if request.threads or request.engine_busy_file is None:
        threads = RunThreads(request.threads or cores, request.threads or cores, None)
    else:
        threads = RunThreads(max(1, cores // 2), cores, BusyFile(request.engine_busy_file))
    threads.follow()
    return threads


class RunThreads:
    """Sets torch's threads before every micro-batch.

    `few` while the engine computes; while it is idle, `few` or `many`, whichever is faster.
    `engine` None: no engine is looked at.
    """

    def __init__(self, few: int, many: int, engine: BusyFile | None) -> None:
        self._few = few
        self._engine = engine
        self._trial = _Trial(few, many)
        self._was_disturbed = False
        """Whether the engine has computed since the last step."""

    def follow(self) -> None:
        """Set the number of threads for the next micro-batch."""
        is_busy = self._engine is not None and self._engine.is_marked_by_another()
        self._was_disturbed |= is_busy
        threads = self._few if is_busy else self._trial.threads
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

    def note(self, step: StepDone) -> None:
        """Take the speed of a step, unless the engine has disturbed it."""
        if not self._was_disturbed:
            self._trial.note(step)
        self._was_disturbed = False


class _Trial:
    """Compares the speeds of the first steps with two numbers of threads, in turns.

    `threads` is the number for the next step, and at last the faster one.
    """

    def __init__(self, few: int, many: int) -> None:
        self.threads = many
        self._few, self._many = _Pace(few), _Pace(many)
        self._is_over = few == many
        self._warm_up_steps = WARM_UP_STEPS

    def note(self, step: StepDone) -> None:
        if self._is_over:
            return
        if self._warm_up_steps:
            self._warm_up_steps -= 1
            return
        few, many = self._few, self._many
        (many if self.threads == many.threads else few).add(step)
        if few.steps < many.steps:
            self.threads = few.threads
            return
        gain = many.tokens_per_second / few.tokens_per_second
        is_clear = not 1 / CLEARLY_FASTER < gain < CLEARLY_FASTER
        self._is_over = is_clear or few.steps == PAIRS
        self.threads = few.threads if self._is_over and gain < 1 else many.threads


@dataclass
class _Pace:
    """The measured steps with one number of threads."""

    threads: int
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, step: StepDone) -> None:
        self.steps += 1
        self.tokens += step.tokens
        self.seconds += step.seconds

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds
