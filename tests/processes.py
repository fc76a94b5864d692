"""Is a process gone? One that init has yet to collect is."""

import psutil


def is_alive(process: psutil.Process) -> bool:
    """Return False for a process that has ended, also while it is still a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
