"""Recognizes a full disk: of the worker, of its child, or of the storage."""

import errno
import os

DISK_FULL = "disk_full"
"""The code of the RunFailed event of a child that found a disk full."""

_WORDS = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))


def is_disk_full(error: Exception) -> bool:
    """Return whether the message contains the system's words for a full disk.

    safetensors and torch quote them in errors of their own classes.
    """
    return any(words in str(error) for words in _WORDS)
