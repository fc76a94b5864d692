"""What one measured run consists of, and how runs become figures."""

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
    """One optimiser step: seconds since the step before (of the first: since loading began)."""

    seconds: float
    tokens: int
    targets: int
    loss: float
    """Mean nats per labelled token."""


@dataclass(frozen=True)
class MeasuredRun:
    """The steps of one run, all from the same start: loading of the base from its folder."""

    steps: tuple[MeasuredStep, ...]

    def steady_tokens_per_second(self, warm_up_steps: int) -> float:
        """Real tokens per second, padding not counted, after the first `warm_up_steps`."""
        steady = self.steps[warm_up_steps:]
        return sum(step.tokens for step in steady) / sum(step.seconds for step in steady)

    def seconds_to_last_step(self) -> float:
        """Wall time from the start of loading to the end of the last step."""
        return sum(step.seconds for step in self.steps)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds of both of the ratio within one, which cancels the machine's drift."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=False))


def matmul_gigaflops(
    dtype: torch.dtype, clock: Clock, shape: tuple[int, int, int], repeats: int = 30
) -> float:
    """Measured peak of this machine for a product (T, I) @ (I, O) of the benchmark."""
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
    """The device by name; of a processor also how many threads were used."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:  # not Linux
        found = None
    return f"{found[1].strip() if found else name}, {threads} threads"


def stolen_seconds() -> float:
    """Return the processor time since boot that a host gave to others; 0 where none says so."""
    try:
        ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]
    except (OSError, IndexError):
        return 0.0
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
