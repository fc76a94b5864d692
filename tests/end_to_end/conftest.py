"""One running service for all end-to-end tests: the very processes that `tunesmith up` starts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai.types.fine_tuning import FineTuningJob

from tests.end_to_end.service import DATASET, Service, running_service, submit, upload, wait_until


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    soon = {"TUNESMITH_CHECK_SECONDS": "0.1"}  # a pause is noticed while there is still a run
    with running_service(tmp_path_factory.mktemp("service"), soon) as service:
        yield service


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 rows of the example: enough to learn from, quick to train on."""
    path = tmp_path_factory.mktemp("data") / "small.jsonl"
    lines = (DATASET / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:240]), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tuned(service: Service, small_dataset: Path) -> FineTuningJob:
    """A job that has succeeded."""
    client = service.client
    job = submit(client, upload(client, small_dataset), suffix="shared")
    return wait_until(client, job.id, "succeeded")
