"""A file by which a process shows the others of its machine that it computes.

The mark is a lock on the file, which the kernel removes when the process dies.
"""

import fcntl
import os
from pathlib import Path


class BusyFile:
    """One process's view of the file, for marking it or for looking at it, until it ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._is_mine = False

    def mark(self) -> None:
        """Show that this process computes. Waits for a look of another process, microseconds."""
        if not self._is_mine:
            fcntl.flock(self._file, fcntl.LOCK_SH)
            self._is_mine = True

    def unmark(self) -> None:
        """Show that this process does not compute."""
        if self._is_mine:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._is_mine = False

    def is_marked_by_another(self) -> bool:
        """Return whether another process computes; not for a process that has marked the file."""
        assert not self._is_mine, "a look would remove the mark"
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return False
