"""How engines register, and who may."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request

from api.engines.service import refuse_loopback_of_others
from core.errors import InvalidRequest
from core.records.engines import living_engines
from core.spec.engine_protocol import EngineReport
from tests.api.live import Api, running_api

ENGINES = "/internal/engines"
HERE = {"url": "http://127.0.0.1:9001", "running": 3, "max_running": 8}


def known(api: Api) -> list[EngineReport]:
    with api.database.reading() as session:
        return [engine.report for engine in living_engines(session)]


@pytest.fixture
def bare(tmp_path: Path, sqlite_url: str) -> Any:
    """An API that knows no engine."""
    with running_api(tmp_path, sqlite_url) as api:
        yield api


def test_an_engine_is_known_from_its_first_report_until_it_leaves(bare: Api) -> None:
    with httpx.Client(base_url=bare.url) as client:
        assert client.put(ENGINES, json=HERE).status_code == 200
        assert known(bare) == [EngineReport.model_validate(HERE)]
        assert client.put(ENGINES, json=HERE | {"running": 4}).status_code == 200
        assert [report.running for report in known(bare)] == [4]
        assert client.put(ENGINES, json=HERE | {"status": "draining"}).status_code == 200
        assert known(bare) == []
        assert client.delete(ENGINES, params={"url": HERE["url"]}).status_code == 204
        assert client.put(ENGINES, json=HERE).status_code == 200
        assert len(known(bare)) == 1


@pytest.mark.parametrize(
    "change", [{"url": "ftp://x"}, {"url": "http://x/path"}, {"status": "odd"}]
)
def test_a_report_that_is_none_is_refused_by_field(bare: Api, change: dict[str, Any]) -> None:
    answer = httpx.put(bare.url + ENGINES, json=HERE | change)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(change)))
    assert known(bare) == []


def test_an_engine_is_told_for_which_bases_to_look(bare: Api) -> None:
    bases = httpx.put(bare.url + ENGINES, json=HERE).json()["bases"]
    assert {each["id"] for each in bases} == {base.id for base in bare.state.catalog.bases()}
    present = {"source": "Qwen/Qwen3-0.6B", "revision": ""}
    assert present in [each["files"] for each in bases]
    assert httpx.put(bare.url + ENGINES, json=HERE | {"present": [present]}).is_success
    assert [files.model_dump() for files in known(bare)[0].present] == [present]


def test_a_report_of_a_newer_engine_is_taken_without_what_is_unknown(bare: Api) -> None:
    assert httpx.put(bare.url + ENGINES, json=HERE | {"watts": 300}).status_code == 200
    assert known(bare) == [EngineReport.model_validate(HERE)]


@pytest.mark.parametrize(
    ("settings", "key", "status"),
    [
        ({}, None, 200),
        ({"engine_key": "e"}, None, 401),
        ({"engine_key": "e"}, "wrong", 401),
        ({"engine_key": "e"}, "e", 200),
        ({"engine_key": "e", "api_key": "k"}, "k", 401),
        ({"api_key": "k"}, "k", 401),  # a client's key opens nothing to engines
        ({"api_key": "k"}, None, 401),
    ],
)
def test_an_engine_needs_the_key_for_engines(
    tmp_path: Path, sqlite_url: str, settings: dict[str, str], key: str | None, status: int
) -> None:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    with running_api(tmp_path, sqlite_url, **settings) as api:
        for method, content, success in (
            ("PUT", {"json": HERE}, 200),
            ("DELETE", {"params": {"url": "x"}}, 204),
        ):
            answer = httpx.request(method, api.url + ENGINES, headers=headers, **content)  # type: ignore[arg-type]
            assert answer.status_code == (success if status == 200 else status)
            assert answer.is_success or answer.json()["error"]["code"] == "invalid_engine_key"
        assert len(known(api)) == (status == 200)


def test_the_engines_key_opens_nothing_to_clients(tmp_path: Path, sqlite_url: str) -> None:
    headers = {"authorization": "Bearer e"}
    with running_api(tmp_path, sqlite_url, engine_key="e", api_key="k") as api:
        assert httpx.get(f"{api.url}/v1/models", headers=headers).status_code == 401


def test_a_web_page_cannot_register_an_engine(bare: Api) -> None:
    headers = {"origin": "https://example.org"}
    assert httpx.put(bare.url + ENGINES, json=HERE, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("url", "sender", "here", "is_taken"),
    [
        ("http://127.0.0.1:8001", "127.0.0.1", "127.0.0.1", True),
        ("http://localhost:8001", "::1", "::1", True),
        ("http://127.0.0.1:8001", "192.0.2.7", "192.0.2.7", True),  # by its own outer address
        ("http://127.0.0.1:8001", "192.0.2.8", "192.0.2.7", False),
        ("http://[::1]:8001", "192.0.2.8", "192.0.2.7", False),
        ("http://192.0.2.8:8001", "192.0.2.8", "192.0.2.7", True),
        ("http://engine:8001", "192.0.2.8", "192.0.2.7", True),
    ],
)
def test_loopback_of_another_machine_is_no_address(
    url: str, sender: str, here: str, is_taken: bool
) -> None:
    scope = {"type": "http", "client": (sender, 40000), "server": (here, 8000)}
    try:
        refuse_loopback_of_others(EngineReport(url=url), Request(scope))
        assert is_taken
    except InvalidRequest as error:
        assert not is_taken
        assert "TUNESMITH_ENGINE_URL" in error.message


def test_the_public_description_leaves_engines_out(bare: Api) -> None:
    assert not [path for path in bare.app.openapi()["paths"] if path.startswith("/internal")]
