import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.workshop import Workshop, make_workshop

# Other processes share the cores of a test machine: threads that wait must sleep. The
# forkserver of this process, which the first training starts, inherits it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def workshop(tmp_path: Path, sqlite_url: str) -> Iterator[Workshop]:
    workshop = make_workshop(tmp_path, sqlite_url)
    yield workshop
    workshop.database.close()
