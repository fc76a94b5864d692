"""The training child: runs the recipe and sends its events through a pipe.

It uses no database and no broker. `worker.launch` calls these functions by name.
"""

import logging
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from pydantic import BaseModel
from transformers.utils.logging import disable_progress_bar

from core.artifacts.archive import pack, pack_state
from core.errors import TunesmithError
from core.exports.steps import run_step
from core.made_models import run as made_models
from core.models.precision import pick_device
from core.spec.dry_run import DryRunResult
from core.spec.events import (
    CheckpointSaved,
    MaskAudited,
    ResumeStateSaved,
    RunEvent,
    RunFailed,
    RunFinished,
    RungReached,
)
from core.spec.export_steps import ExportStep
from core.spec.making import MadeBundle, MakingRequest
from core.spec.run_request import RunRequest, archive_of
from core.training.dry_run import measure
from core.training.mask import audit_file
from core.training.recipe import train
from worker.child import calibration
from worker.child.cores import cores_of
from worker.child.process import lead_own_group, log_to
from worker.outages.full_disk import DISK_FULL, is_disk_full

logger = logging.getLogger(__name__)


def run(events: Connection, request: RunRequest) -> None:
    """Run a job. Send each event as one JSON message; an event with a folder, once it is packed."""
    lead_own_group()
    log_to(request.log_file)
    disable_progress_bar()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    cores = cores_of(request)

    def should_stop() -> bool:
        cores.follow()  # the recipe asks before every micro-batch
        return stop.is_set()

    def send(event: RunEvent) -> None:
        events.send_bytes(event.model_dump_json().encode())

    try:
        events_of_run = train(
            request.spec,
            request.workspace,
            should_stop,
            precision_folder=request.precision_folder,
            stored_source=request.stored_source,
            pause_at_share=request.pause_at_share,
            asks_at_rung=request.asks_at_rung,
        )
        for event in events_of_run:
            if isinstance(event, CheckpointSaved | RungReached | RunFinished):
                if event.folder is not None:
                    pack(event.folder, archive_of(event.folder))
            elif isinstance(event, ResumeStateSaved):
                pack_state(event.folder, archive_of(event.folder))
            send(event)
    except TunesmithError as error:
        send(RunFailed(code=error.code, message=error.message, param=error.param))
    except Exception as error:
        logger.exception("The run failed.")
        code = DISK_FULL if is_disk_full(error) else "internal_error"
        send(RunFailed(code=code, message=f"{type(error).__name__}: {error}"))


def audit(answer: Connection, request: RunRequest) -> None:
    """Send the masks of the first rows of the training file, or the error that prevents it."""
    lead_own_group()
    torch.set_num_threads(1)
    _answer(
        answer,
        request.log_file,
        "audit_failed",
        lambda: MaskAudited(rows=audit_file(request.spec, request.workspace)),
    )


def dry_run(answer: Connection, request: RunRequest) -> None:
    """Run two steps of a job; send what was measured, or the error that prevents it."""
    lead_own_group()

    def measured() -> DryRunResult:
        cores_of(request)
        return measure(request.spec, request.workspace, request.precision_folder)

    _answer(answer, request.log_file, "internal_error", measured)


def export(answer: Connection, step: ExportStep, threads: int, log_file: Path) -> None:
    """Run one step of an export; send its result, or the error that prevents it."""
    lead_own_group()
    torch.set_num_threads(threads)
    _answer(answer, log_file, "export_failed", lambda: run_step(step))


def make_bundle(answer: Connection, request: MakingRequest) -> None:
    """Make a bundle without a job and pack it; send PEFT's figures, or the error."""
    lead_own_group()

    def made() -> MadeBundle:
        cores_of(request)
        result = made_models.make_bundle(request)
        pack(request.bundle_folder, archive_of(request.bundle_folder))
        return result

    _answer(answer, request.log_file, "internal_error", made)


def _answer(
    answer: Connection, log_file: Path, failed_code: str, compute: Callable[[], BaseModel]
) -> None:
    """Send what `compute` returns, or the error that prevents it; `failed_code` if it is a bug."""
    log_to(log_file)
    disable_progress_bar()
    event: BaseModel
    try:
        event = compute()
    except TunesmithError as error:
        event = RunFailed(code=error.code, message=error.message, param=error.param)
    except Exception as error:
        logger.exception("The work failed.")
        code = DISK_FULL if is_disk_full(error) else failed_code
        event = RunFailed(code=code, message=f"{type(error).__name__}: {error}")
    answer.send_bytes(event.model_dump_json().encode())


def calibrate(answer: Connection, threads: int | None) -> None:
    """Send the speed and the memory of the device."""
    answer.send_bytes(calibration.calibrate(threads).model_dump_json().encode())


def describe_device(answer: Connection) -> None:
    """Send the name of the device that a run on this machine would use."""
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    answer.send_bytes(name.encode())
