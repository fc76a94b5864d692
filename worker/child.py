"""The training child: runs the recipe and says on its pipe what happens.

It knows no database and no broker. It is the leader of its own process group, and kills
that group when its worker is gone, so that a dead worker leaves nothing on the device.
"""

import logging
import os
import signal
import sys
import threading
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from core.artifacts.archive import pack, pack_state
from core.errors import TunesmithError
from core.models.precision import pick_device
from core.spec.events import (
    CheckpointSaved,
    MaskAudited,
    ResumeStateSaved,
    RunEvent,
    RunFailed,
    RunFinished,
)
from core.training.mask import audit_file
from core.training.recipe import train
from worker.disk import DISK_FULL, is_disk_full
from worker.launch import Order, archive_of

logger = logging.getLogger(__name__)


def main(events: Connection, order: Order) -> None:
    """Run `order`; send every event as one JSON message, a folder's only once it is packed."""
    os.setsid()
    _die_with_the_worker()
    _log_to(order.log_file)
    disable_progress_bar()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    torch.set_num_threads(order.threads or len(os.sched_getaffinity(0)))

    def say(event: RunEvent) -> None:
        events.send_bytes(event.model_dump_json().encode())

    try:
        events_of_run = train(
            order.spec, order.workspace, stop.is_set, precision_folder=order.precision_folder
        )
        for event in events_of_run:
            if isinstance(event, CheckpointSaved | RunFinished):
                pack(event.folder, archive_of(event.folder))
            elif isinstance(event, ResumeStateSaved):
                pack_state(event.folder, archive_of(event.folder))
            say(event)
    except TunesmithError as error:
        say(RunFailed(code=error.code, message=error.message, param=error.param))
    except Exception as error:
        logger.exception("The run failed.")
        code = DISK_FULL if is_disk_full(error) else "internal_error"
        say(RunFailed(code=code, message=f"{type(error).__name__}: {error}"))


def audit(answer: Connection, order: Order) -> None:
    """Send what the first rows of the training file train on, or why that cannot be told."""
    os.setsid()
    _die_with_the_worker()
    _log_to(order.log_file)
    torch.set_num_threads(1)
    try:
        event: RunEvent = MaskAudited(rows=audit_file(order.spec, order.workspace))
    except TunesmithError as error:
        event = RunFailed(code=error.code, message=error.message, param=error.param)
    answer.send_bytes(event.model_dump_json().encode())


def describe_device(answer: Connection) -> None:
    """Send the name of the device that a run on this machine would use."""
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    answer.send_bytes(name.encode())


def _die_with_the_worker() -> None:
    worker = parent_process()
    assert worker is not None

    def watch() -> None:
        wait([worker.sentinel])
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="watch-worker", daemon=True).start()


def _log_to(path: Path) -> None:
    """Send all output to a file, that of libraries written in C included."""
    with path.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
