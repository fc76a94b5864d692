"""An API whose jobs and batches are worked on, without training anything."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.errors import StaleClaim
from core.records.claims import claim_next
from core.records.owned import get_owned
from core.records.tables import Job
from tests.api import as_worker
from tests.api.fixtures import api, engine, running
from tests.api.light_worker import light_worker_of
from tests.api.live import Api, running_api, serve
from tests.api.scripted_engine import ScriptedEngine

__all__ = ["api", "engine", "running"]

LEFT_RUNNING = "to-cancel"
"""A job with this suffix is started and never finished."""


def work(api: Api, is_over: threading.Event) -> None:
    while not is_over.wait(0.05):
        with api.database.writing() as session:
            claim = claim_next(session, "worker-test", 30)
        if claim is None:
            continue
        try:
            held = as_worker.run(api, claim)
        except StaleClaim:  # the client was quicker to cancel the job
            continue
        with api.database.reading() as session:
            suffix = get_owned(session, Job, "default", claim.job_id).suffix
        if suffix != LEFT_RUNNING:
            as_worker.save_checkpoint(api, held)
            as_worker.succeed(api, held)


@contextmanager
def worked_on(api: Api) -> Iterator[Api]:
    """Let workers run beside the API for the length of the block."""
    is_over = threading.Event()
    worker = threading.Thread(target=work, args=(api, is_over))
    worker.start()
    try:
        with light_worker_of(api):
            yield api
    finally:
        is_over.set()
        worker.join()


@pytest.fixture
def worked_api(api: Api) -> Iterator[Api]:
    with worked_on(api):
        yield api


@pytest.fixture
def worked_postgres_api(tmp_path: Path, postgres_url: str) -> Iterator[Api]:
    with (
        serve(ScriptedEngine().app) as engine_url,
        running_api(tmp_path, postgres_url, engine_url) as api,
        worked_on(api),
    ):
        yield api
