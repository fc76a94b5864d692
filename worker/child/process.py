"""The process of a child: a group of its own that ends with its worker, and one log file."""

import logging
import os
import signal
import sys
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path


def lead_own_group() -> None:
    """Lead a new process group, and kill it when the worker is gone.

    A dead worker so leaves nothing on the device.
    """
    os.setsid()
    worker = parent_process()
    assert worker is not None

    def watch() -> None:
        wait([worker.sentinel])
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="watch-worker", daemon=True).start()


def log_to(path: Path) -> None:
    """Send all output to a file, that of libraries written in C included."""
    with path.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
