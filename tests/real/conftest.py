"""Tests on real models, for which `make real-bases` has to have run: `make test-real`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.real_bases import BASES, CATALOG, FOLDER, is_made
from tests.end_to_end.service import Service, running_service

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("real")


@pytest.fixture(scope="session")
def real_bases() -> Path:
    """The folder with the bases and their catalog.

    One thread computes here, since worker and engine compute beside.
    """
    import torch

    torch.set_num_threads(1)
    folder = ROOT / FOLDER
    missing = [base.name for base in BASES if not is_made(folder, base)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not made yet: run `make real-bases`")
    return folder


@pytest.fixture(scope="session")
def smollm2(real_bases: Path) -> Path:
    return real_bases / "smollm2"


@pytest.fixture(scope="session")
def minilm(real_bases: Path) -> Path:
    return real_bases / "minilm"


@pytest.fixture(scope="session")
def service(real_bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {
        "TUNESMITH_CATALOG_FILE": str(real_bases / CATALOG),
        "TUNESMITH_CHECK_SECONDS": "0.1",  # a pause is noticed while there is still a run
    }
    with running_service(tmp_path_factory.mktemp("service"), settings) as service:
        yield service
