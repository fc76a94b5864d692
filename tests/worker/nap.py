"""A kind of task that exists in tests only: this one file, and the one row NAP.

It waits until a file exists, and leaves a line in another one at each start.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from core.errors import InvalidRequest, Unavailable
from core.spec.base import Spec
from core.tasks.kinds import KINDS, Queue, TaskKind
from worker.coroutines import Interrupted
from worker.tasks.attempt import Attempt

NAP = TaskKind(
    runner="tests.worker.nap",
    queue=Queue.LIGHT,
    id_prefix="nap",
    lease_seconds=1.5,
    max_attempts=3,
    retry_seconds=0.05,
    limit_seconds=100,
    at_once=2,
    kept_seconds=60,
)


class NapRequest(Spec):
    gate: str
    """The nap ends when this file exists."""
    log: str
    dream: str = ""
    """`crash`, `fail`, `search` (asks storage), `sleepwalk` (does not stop when it should), `wait`
    (raises Unavailable when it should stop, as storage does), or what the result tells."""


class NapResult(Spec):
    dream: str


def run(attempt: Attempt) -> NapResult:
    request = NapRequest.model_validate(attempt.payload)
    assert attempt.folder.is_dir()
    with Path(request.log).open("a") as log:
        log.write(f"{attempt.claim.id} {attempt.claim.token}\n")
    while not Path(request.gate).exists():
        if attempt.should_stop() and request.dream == "wait":
            raise Unavailable("There is no bed.")
        if attempt.should_stop() and request.dream != "sleepwalk":
            raise Interrupted
        time.sleep(0.01)
    match request.dream:
        case "crash":
            raise RuntimeError("a nightmare")
        case "fail":
            raise InvalidRequest("Nobody can sleep here.", code="too_loud", param="bed")
        case "search":
            attempt.store.exists("files/bed")
            return NapResult(dream="found")
        case _:
            return NapResult(dream=request.dream)


@contextmanager
def nap_kind(queue: Queue = Queue.LIGHT, **changes: float) -> Iterator[None]:
    """Have the row in the table for the length of the block."""
    with patch.dict(KINDS, {"nap": replace(NAP, queue=queue, **changes)}):
        yield
