"""What a full disk looks like, whoever meets it: the worker, its child, or storage behind them."""

import errno
import os

DISK_FULL = "disk_full"
"""The code of a RunFailed that says so."""

_WORDS = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))


def is_disk_full(error: Exception) -> bool:
    """Go by the system's words: safetensors and torch put them into errors of their own."""
    return any(words in str(error) for words in _WORDS)
