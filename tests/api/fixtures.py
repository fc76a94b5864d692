"""Fixtures that the tests of the API, of the contract and of the clients share."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from core.datasets import bounded
from core.datasets.bounded import output_of_child
from core.records.files import add_file, new_file_key
from core.records.projects import ensure_project
from core.records.tables import Table
from core.spec.dataset import DatasetReport
from migrations.upgrade import upgrade
from tests.api.live import Api, register, running_api, serve
from tests.api.scripted_engine import ScriptedEngine
from tests.contract.contract import CheckedClient

GOOD_ROWS = b"".join(
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"question {index}"},
                {"role": "assistant", "content": f"answer {index}"},
            ]
        }
    ).encode()
    + b"\n"
    for index in range(40)
)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, ScriptedEngine]]:
    """One API and one engine for all tests; `api` empties them."""
    folder = tmp_path_factory.mktemp("api")
    database_url = f"sqlite:///{folder}/tunesmith.db"
    upgrade(database_url)
    engine = ScriptedEngine()
    with serve(engine.app) as engine.url, running_api(folder, database_url) as api:
        yield api, engine


@pytest.fixture
def engine(running: tuple[Api, ScriptedEngine]) -> ScriptedEngine:
    """An engine that has seen nothing."""
    engine = running[1]
    engine.reset()
    return engine


CHECKED: dict[tuple[object, ...], bytes] = {}
"""What a checker has printed about a file, in a child that takes 0.2 s to start."""


def remembered(arguments: tuple[str, ...], path: Path, *limits: float) -> bytes:
    """Return what a checker prints; equal files are checked once, except for those that fail."""
    with path.open("rb") as file:
        key = arguments, hashlib.file_digest(file, "sha256").digest(), *limits
    if key not in CHECKED:
        CHECKED[key] = output_of_child(arguments, path, *limits)
    return CHECKED[key]


@pytest.fixture
def api(
    running: tuple[Api, ScriptedEngine], engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> Api:
    """An API without rows, blobs and messages, but with its engine, which has seen nothing."""
    monkeypatch.setattr(bounded, "output_of_child", remembered)
    api = running[0]
    with api.database.writing() as session:
        for table in reversed(Table.metadata.sorted_tables):
            session.execute(table.delete())
        ensure_project(session)
    register(api, engine.url)
    for kind in ("storage", "broker/messages"):
        for path in (api.folder / kind).rglob("*"):
            if path.is_file():
                path.unlink()
    return api


@pytest.fixture
def client(api: Api) -> Iterator[httpx.Client]:
    """A client that holds every JSON answer against the contract."""
    with CheckedClient(base_url=api.url, timeout=120) as client:
        yield client


@pytest.fixture
def upload(client: httpx.Client) -> Callable[..., str]:
    """`upload(content)` uploads a dataset and returns the file's id."""

    def upload(content: bytes = GOOD_ROWS, filename: str = "data.jsonl") -> str:
        answer = client.post(
            "/v1/files", data={"purpose": "fine-tune"}, files={"file": (filename, content)}
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    return upload


@pytest.fixture
def dataset(api: Api) -> str:
    """The id of a good dataset, recorded without the time that an upload's check takes."""
    file_id, key = new_file_key()
    blob = api.state.store.write(key, [GOOD_ROWS])
    with api.database.writing() as session:
        add_file(
            session,
            file_id=file_id,
            project_id="default",
            filename="data.jsonl",
            purpose="fine-tune",
            bytes=blob.bytes,
            sha256=blob.sha256,
            blob_key=key,
            report=DatasetReport(format="chat", rows=40, faults=(), fault_count=0),
        )
    return file_id


@pytest.fixture
def create_job(client: httpx.Client, dataset: str) -> Callable[..., str]:
    """`create_job(suffix="x")` creates a job on a good dataset and returns its id."""

    def create(**body: object) -> str:
        good = {"model": "tunesmith/tiny", "training_file": dataset}
        answer = client.post("/v1/fine_tuning/jobs", json=good | body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    return create
