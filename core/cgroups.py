"""The control groups that limit this process, of both versions of Linux's interface."""

from collections.abc import Iterator
from pathlib import Path

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's groups for `controller`, and of those around them.

    In a container, the folders of the outer names do not exist, and the root's is its own.
    """
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", maxsplit=2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = _GROUPS / controllers
        inner = Path(path.lstrip("/"))
        yield from (mount / part for part in (inner, *inner.parents))
