"""A measured run, and the figures computed from runs."""

import os
import platform
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

Clock = Callable[[], float]
"""Seconds from some origin: `time.perf_counter`, or `time.process_time` on a busy machine."""


@dataclass(frozen=True)
class MeasuredStep:
    """One optimizer step: seconds since the previous step (the first: since loading began)."""

    seconds: float
    tokens: int
    targets: int
    loss: float
    """Mean nats per labelled token."""


@dataclass(frozen=True)
class MeasuredRun:
    """The steps of one run; time starts with loading the base from its folder."""

    steps: tuple[MeasuredStep, ...]

    def steady_tokens_per_second(self, warm_up_steps: int) -> float:
        """Return tokens per second without padding, after the first `warm_up_steps`."""
        steady = self.steps[warm_up_steps:]
        return sum(step.tokens for step in steady) / sum(step.seconds for step in steady)

    def seconds_to_last_step(self) -> float:
        """Return the wall time from the start of loading to the end of the last step."""
        return sum(step.seconds for step in self.steps)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over rounds of the ratio within a round, which cancels drift."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=False))


def matmul_gigaflops(
    dtype: torch.dtype, clock: Clock, shape: tuple[int, int, int], repeats: int = 30
) -> float:
    """Measure this machine's peak for a product (T, I) @ (I, O) of the benchmark."""
    tokens, inputs, outputs = shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left = torch.randn(tokens, inputs, device=device).to(dtype)
    right = torch.randn(inputs, outputs, device=device).to(dtype)
    seconds = []
    for _ in range(repeats):
        started = clock()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - started)
    return 2 * tokens * inputs * outputs / min(seconds) / 1e9


def hardware(threads: int) -> str:
    """Return the name of the device, for a CPU with the number of threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:  # not Linux
        found = None
    return f"{found[1].strip() if found else name}, {threads} threads"


def stolen_seconds() -> float:
    """Return the CPU time since boot that the host gave to others; 0 if unknown."""
    try:
        ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]
    except (OSError, IndexError):
        return 0.0
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
