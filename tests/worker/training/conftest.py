from collections.abc import Callable
from pathlib import Path

import pytest

from core.spec.run_request import archive_of
from tests.worker.training.recording import recording
from tests.worker.workshop import Workshop
from worker.training.publish import METRICS_FILE
from worker.training.recorder import Recorder


@pytest.fixture
def job_id(workshop: Workshop) -> str:
    return workshop.submit()


@pytest.fixture
def recorder(workshop: Workshop, job_id: str) -> Recorder:
    return recording(workshop)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        folder = tmp_path / "bundles-of-the-child" / name
        folder.mkdir(parents=True)
        (folder / METRICS_FILE).write_text("step,train_loss\n")
        archive_of(folder).write_bytes(name.encode())
        return folder

    return make
