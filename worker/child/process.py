"""The process of a child: its process group, which ends with the worker, and its log file."""

import logging
import os
import signal
import sys
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path


def lead_own_group() -> None:
    """Create a process group, and kill it when the worker has ended.

    So a dead worker leaves no process on the device.
    """
    os.setsid()
    worker = parent_process()
    assert worker is not None

    def watch() -> None:
        wait([worker.sentinel])
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="watch-worker", daemon=True).start()


def log_to(path: Path) -> None:
    """Redirect stdout and stderr to a file, including the output of C libraries."""
    with path.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
