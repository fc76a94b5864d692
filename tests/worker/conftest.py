from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.workshop import Workshop, make_workshop


@pytest.fixture
def workshop(tmp_path: Path, sqlite_url: str) -> Iterator[Workshop]:
    workshop = make_workshop(tmp_path, sqlite_url)
    yield workshop
    workshop.database.close()
