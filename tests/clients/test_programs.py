"""Programs of others, unmodified, each on its default path against a running service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.accounts import login_server
from tests.clients.program import PROGRAMS, Program
from tests.clients.run import Given, run_and_note
from tests.clients.weather import jsonl, tune
from tests.end_to_end.service import running_service

BASE = "gpt-4o-mini-2024-07-18"

CATALOG = """
[[bases]]
id = "tunesmith/tiny"
aliases = ["{base}"]

[[bases]]
id = "text-embedding-3-small"
source = "{encoder}"
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    """A service with an alias of OpenAI's, an encoder, and a model that calls a tool."""
    from tests.core.tiny import save_base

    folder = tmp_path_factory.mktemp("programs")
    save_base(folder / "bert", "bert")
    catalog = folder / "bases.toml"
    catalog.write_text(CATALOG.format(base=BASE, encoder=folder / "bert"), encoding="utf-8")
    train_file = folder / "train.jsonl"
    train_file.write_bytes(b"".join(jsonl().splitlines(keepends=True)[:16]))
    settings = {"TUNESMITH_CATALOG_FILE": str(catalog), "TUNESMITH_DEFAULT_MODEL": "tunesmith/tiny"}
    with login_server() as login_url, running_service(folder / "data", settings) as service:
        job = tune(service.client, BASE)
        assert job.fine_tuned_model is not None
        yield Given(service.url, BASE, job.fine_tuned_model, job.id, train_file, login_url)


@pytest.mark.clients
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "program", PROGRAMS, ids=lambda program: f"{program.folder}-{program.environment}"
)
def test_program_works_unmodified(program: Program, given: Given, tmp_path: Path) -> None:
    run_and_note(program, given, tmp_path)
