"""What the tests of lost workers share: a workshop for each file, and housekeeping in it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.workshop import Workshop, make_workshop
from worker import housekeeping


@pytest.fixture(scope="module")
def workshop(
    tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path
) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "tunesmith.db").write_bytes(_sqlite_template.read_bytes())
    workshop = make_workshop(folder, f"sqlite:///{folder}/tunesmith.db")
    yield workshop
    workshop.database.close()


@pytest.fixture(scope="module")
def housekeeper(workshop: Workshop) -> Iterator[None]:
    stopping = threading.Event()
    thread = threading.Thread(target=housekeeping.run, args=[workshop.settings(), stopping])
    thread.start()
    yield
    stopping.set()
    thread.join()
