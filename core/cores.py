"""How many cores this process may use: those it may run on, within the CPU quota of its container;
and how many of them a run is worth.

A quota (`docker run --cpus`, a CPU limit of Kubernetes) is invisible in the number of cores. With a
thread for every core of the machine, the kernel stops all of them for most of each period.
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress

from core.cgroups import groups

FLOPS_PER_THREAD = 50e6
"""The shortest part of a product that is worth a thread, which takes some 20 us to wake."""


def usable_cores() -> int:
    """Return the number of cores, at least one; a fraction of a core counts as one."""
    return max(1, math.ceil(min([len(os.sched_getaffinity(0)), *_quotas()])))


def useful_threads(threads: int, width: int, tokens_per_pass: float) -> int:
    """Return how many of `threads` shorten the products of a base with this hidden size.

    It depends on no measurement: some kernels round differently with another number of threads, so
    a measured number would break "same seed, same weights".
    """
    useful = int(2 * tokens_per_pass * width**2 / FLOPS_PER_THREAD)
    return max(1, min(threads, useful))


def _quotas() -> Iterator[float]:
    """Yield every quota that applies to this process, in cores."""
    for group in groups("cpu"):
        with suppress(OSError, ValueError):  # no such group, or "max"
            quota, period = (group / "cpu.max").read_text().split()
            yield int(quota) / int(period)
        with suppress(OSError, ValueError):
            quota_us = int((group / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:  # -1: none
                yield quota_us / int((group / "cpu.cfs_period_us").read_text())
