"""Downloads a base from the Hugging Face hub, in a process of its own, with progress in the rows.

The jobs that wait for the base get events; `core.records.base_downloads` decides about them.
"""

import json
import logging
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.errors import InvalidRequest, Unavailable
from core.records.base_downloads import end_waiting, record_progress
from core.spec.base_files import DownloadProgress, NamedSource
from worker.coroutines import CHECK_SECONDS, Interrupted
from worker.outages.commit import commit
from worker.outages.full_disk import DISK_FULL, is_disk_full
from worker.tasks.attempt import Attempt
from worker.tasks.desk import HUB_UNAVAILABLE

logger = logging.getLogger(__name__)

STALLED_SECONDS = 120.0
"""A download without a new byte for so long is stopped and tried again."""

STEP_PERCENT = 5
"""The events of waiting jobs are at least so far apart."""

Message = dict[str, Any]


def run(attempt: Attempt) -> DownloadProgress:
    """Return the bytes of the complete download.

    Raises InvalidRequest if the hub or the disk refuses it, Unavailable `hub_unavailable` if
    another attempt may help, and Interrupted soon after the attempt should stop.
    """
    request = NamedSource.model_validate(attempt.payload)
    watch = _Watch(attempt, request.id)
    with _messages(attempt, request) as messages:
        while True:
            if attempt.should_stop():
                raise Interrupted
            try:
                message = messages.get(timeout=CHECK_SECONDS)
            except queue.Empty:
                watch.require_progress()
                continue
            if message is None:
                raise Unavailable(
                    f"The download of {request.id} ended unexpectedly.", code=HUB_UNAVAILABLE
                )
            if message.get("done"):
                break
            if "error" in message:
                raise _failure(request, message)
            watch.see(DownloadProgress.model_validate(message))
    commit(attempt.database, lambda session: end_waiting(session, attempt.claim))
    return watch.progress


class _Watch:
    """Records the progress, and notices that there is none."""

    def __init__(self, attempt: Attempt, name: str) -> None:
        self.progress = DownloadProgress(bytes=0, total_bytes=0)
        self._attempt = attempt
        self._name = name
        self._moved_at = time.monotonic()
        self._told_percent: int | None = None

    def see(self, progress: DownloadProgress) -> None:
        if progress == self.progress:
            self.require_progress()
            return
        self.progress = progress
        self._moved_at = time.monotonic()
        told = self._told_percent
        tell = told is None or progress.percent >= told + STEP_PERCENT
        if tell:
            self._told_percent = progress.percent
        commit(
            self._attempt.database,
            lambda session: record_progress(session, self._attempt.claim, progress, tell=tell),
        )

    def require_progress(self) -> None:
        if time.monotonic() - self._moved_at > STALLED_SECONDS:
            raise Unavailable(
                f"The download of {self._name} has stalled: no data for {STALLED_SECONDS:.0f} s.",
                code=HUB_UNAVAILABLE,
            )


@contextmanager
def _messages(attempt: Attempt, request: NamedSource) -> Iterator["queue.Queue[Message | None]"]:
    """Run the download during the block; yield its messages, and None once it has ended."""
    messages: queue.Queue[Message | None] = queue.Queue()
    with (attempt.folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.downloads.fetch", request.model_dump_json()],
            stdin=subprocess.PIPE,  # it ends with this process, which holds the other end
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    lines = process.stdout

    def read() -> None:
        for line in lines:
            messages.put(json.loads(line))
        messages.put(None)

    reader = threading.Thread(target=read, name="download", daemon=True)
    reader.start()
    try:
        yield messages
    finally:
        process.kill()
        process.wait()
        reader.join()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        if tail := (attempt.folder / "log").read_bytes()[-2000:].decode(errors="replace").strip():
            logger.info("The log of the download of %s ends with:\n%s", request.id, tail)


def _failure(request: NamedSource, message: Message) -> InvalidRequest | Unavailable:
    text, code = str(message["error"]), message["code"]
    if code is None and is_disk_full(Exception(text)):
        text, code = f"The disk became full during the download of {request.id}.", DISK_FULL
    if code is None:
        return Unavailable(
            f"{request.id} could not be downloaded from the hub: {text}", code=HUB_UNAVAILABLE
        )
    return InvalidRequest(text, param="model", code=code)
