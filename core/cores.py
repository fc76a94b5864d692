"""How many cores this process may use: those it may run on, within the CPU quota of its container.

A quota (`docker run --cpus`, a CPU limit of Kubernetes) is invisible in the number of cores. With a
thread for every core of the machine, the kernel stops all of them for most of each period.
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the number of cores, at least one; a fraction of a core counts as one."""
    return max(1, math.ceil(min([len(os.sched_getaffinity(0)), *_quotas()])))


def _quotas() -> Iterator[float]:
    """Yield every quota that applies to this process, in cores."""
    for group in _groups():
        with suppress(OSError, ValueError):  # no such group, or "max"
            quota, period = (group / "cpu.max").read_text().split()
            yield int(quota) / int(period)
        with suppress(OSError, ValueError):
            quota_us = int((group / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:  # -1: none
                yield quota_us / int((group / "cpu.cfs_period_us").read_text())


def _groups() -> Iterator[Path]:
    """Yield the folders of this process's groups and of those around them, of both versions.

    In a container, the folders of the outer names do not exist, and that of the root is its own.
    """
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", maxsplit=2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = _GROUPS / controllers
        inner = Path(path.lstrip("/"))
        yield from (mount / part for part in (inner, *inner.parents))
