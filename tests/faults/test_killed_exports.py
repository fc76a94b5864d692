"""Workers are killed during imports, a soup and exports: one model, one archive, nothing half."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.records.database import Database
from tests.end_to_end.adapters import adapter, zipped
from tests.end_to_end.service import BASE_MODEL, Service, running_service
from tests.worker.workshop import wait_until
from worker import housekeeping

ENDED = ("succeeded", "failed")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("killed-exports")) as service:
        yield service


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{service.url}/v1", trust_env=False, timeout=60) as http:
        yield http


def killed_at(
    service: Service, look: Callable[[], Any], module: str, *stages: str
) -> dict[str, Any]:
    """Kill the worker in each of these stages, and return the object at its end."""
    for stage in stages:
        wait_until(lambda stage=stage: _is_at(look(), stage), f"a worker is {stage}")
        service.worker(module).kill()
    wait_until(lambda: look()["status"] in ENDED, "it ends")
    found: dict[str, Any] = look()
    assert found["status"] == "succeeded", found
    return found


def _is_at(found: dict[str, Any], stage: str) -> bool:
    assert found["status"] not in ENDED, f"it ended before it was {stage}: {found}"
    return bool(found["stage"] == stage)


def looking(http: httpx.Client, path: str, id_: str) -> Callable[[], dict[str, Any]]:
    return lambda: dict(http.get(f"{path}/{id_}").json())


def created(http: httpx.Client, path: str, body: dict[str, Any]) -> str:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def blobs(service: Service, prefix: str) -> set[str]:
    """Return the keys with this prefix. The attempt that wrote one is a number in its key."""
    storage = service.data_folder / "storage"
    found = (path for path in (storage / prefix).rglob("*") if path.is_file())
    return {str(path.relative_to(storage)) for path in found}


@pytest.mark.slow
def test_whatever_is_killed_there_is_one_of_each(
    service: Service, http: httpx.Client, tmp_path: Path
) -> None:
    client = service.client
    imports = []
    for seed in (1, 2):
        archive = zipped(adapter(tmp_path / str(seed), seed))
        file = client.files.create(file=archive, purpose="adapter")  # type: ignore[arg-type]
        imports.append(created(http, "/models/import", {"model": BASE_MODEL, "file": file.id}))
    models = [
        killed_at(service, looking(http, "/models/import", id_), "worker", stage)["model"]
        for id_, stage in zip(imports, ("converting", "comparing"), strict=True)
    ]

    soup = created(http, "/models/soups", {"models": models})
    export = created(http, f"/models/{models[0]}/exports", {"format": "merged"})
    with ThreadPoolExecutor() as both:
        made = both.submit(
            killed_at, service, looking(http, "/models/soups", soup), "worker", "converting"
        )
        written = both.submit(
            killed_at,
            service,
            looking(http, "/exports", export),
            "worker.light",
            "writing",
            "replaying",
        )
    models.append(made.result()["model"])
    assert written.result()["replay"]["status"] == "passed", written.result()["replay"]

    # a token is used up by each claim, and by each rescue: every kill has hit an unfinished attempt
    made_after = {f"bundles/{id_}/{1 + 2 * 1}/model.zip" for id_ in (*imports, soup)}
    assert blobs(service, "bundles") == made_after
    assert blobs(service, "exports") == {f"exports/{export}/{1 + 2 * 2}.zip"}
    tuned = [model.id for model in client.models.list() if model.id.startswith("ft:")]
    assert sorted(tuned) == sorted(models)
    for model in models:
        asked: Any = [{"role": "user", "content": "Question 1?"}]
        assert client.chat.completions.create(model=model, messages=asked, max_tokens=4).choices
    _require_no_folders(service)


def _require_no_folders(service: Service) -> None:
    """Housekeeping removes the folders of killed attempts once a minute; here, now."""
    work = service.data_folder / "work"
    time.sleep(0.5)  # the last attempt removes its own after its result is stored
    database = Database(f"sqlite:///{service.data_folder / 'tunesmith.db'}")
    housekeeping.sweep_workspaces(database, work)
    database.close()
    assert not list((work / "tasks").iterdir())
    assert not list((service.data_folder / "storage").glob(".checking-*"))
