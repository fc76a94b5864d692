"""What every answer has in common: the envelope, the request id, the key, the transaction."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from api.jobs import service
from tests.api.live import Api, running_api
from tests.contract.contract import CheckedClient

JOBS = "/v1/fine_tuning/jobs"


def test_unknown_url_and_method_have_the_envelope(client: httpx.Client) -> None:
    unknown = client.get("/v1/assistants")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_url")
    wrong = client.put("/v1/files")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert {each.headers["x-content-type-options"] for each in (unknown, wrong)} == {"nosniff"}


@pytest.mark.parametrize("path", ["/v1/files", "/v1/models/tunesmith/tiny", "/healthz", "/v1/no"])
def test_head_is_get_without_its_body(api: Api, path: str) -> None:
    with httpx.Client(base_url=api.url, trust_env=False) as client:
        got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    same = "content-type", "content-length"
    assert [head.headers[name] for name in same] == [got.headers[name] for name in same]


def test_head_of_a_live_stream_ends(client: httpx.Client, create_job: Callable[..., str]) -> None:
    head = client.head(f"{JOBS}/{create_job()}/events?stream=true", timeout=10)
    assert head.status_code == 200
    assert head.headers["content-type"].startswith("text/event-stream")


def test_options_are_the_methods_of_a_path(client: httpx.Client) -> None:
    options = client.options("/v1/files/file-a")
    assert (options.status_code, options.content) == (204, b"")
    assert options.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
    assert client.options("/v1/no").status_code == 404


def test_several_hosts_are_refused(api: Api) -> None:
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /v1/files HTTP/1.1\r\nHost: localhost\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"[]", "invalid_request"),
        (b"", "invalid_request"),
        (b"[" * 100_000, "invalid_request"),
        (b'{"model": "a", "training_file": "b", "\\ud800": 1}', "invalid_request"),
        (b'{"model": "a\\u0000", "training_file": "b"}', "invalid_value"),
        (b'{"model": "tunesmith/tiny", "training_file": "\\ud800"}', "invalid_value"),
    ],
)
def test_hostile_body_is_refused(client: httpx.Client, body: bytes, code: str) -> None:
    answer = client.post(JOBS, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize("path", ["/v1/files/a%00b", "/v1/files?after=%00", "/v1/models/%00"])
def test_nul_in_the_url_is_refused(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 400


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=many", "limit=1e12"])
def test_wrong_limit_is_named(client: httpx.Client, query: str) -> None:
    answer = client.get(f"{JOBS}?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")


@pytest.mark.parametrize("path", ["/v1/files", JOBS])
def test_unknown_cursor_is_named(client: httpx.Client, path: str) -> None:
    answer = client.get(path, params={"after": "unknown"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "after")


@pytest.fixture
def guarded(tmp_path: Path, sqlite_url: str) -> Iterator[Api]:
    """An API with a key, a limit for bodies, and no engine."""
    with running_api(tmp_path, sqlite_url, api_key="secret", max_body_bytes=2000) as api:
        yield api


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic secret", "secret"])
def test_without_the_key_nothing_is_answered(guarded: Api, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    with CheckedClient(base_url=guarded.url, headers=headers) as client:
        for path in ("/v1/models", "/v1/unknown", JOBS, "/tokenizer_info", "/tokenize"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/healthz").status_code == 200


def test_with_the_key_everything_is_answered(guarded: Api) -> None:
    with CheckedClient(base_url=guarded.url, headers={"authorization": "Bearer secret"}) as client:
        assert client.get("/v1/models").status_code == 200
        large = client.post(JOBS, json={"model": "x" * 3000})
        assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")
        chunks = iter([b" " * 1500, b" " * 1500])
        json_type = {"content-type": "application/json"}
        chunked = client.post(JOBS, content=chunks, headers=json_type)
        assert (chunked.status_code, chunked.json()["error"]["code"]) == (413, "too_large")
        body = {"model": "tunesmith/tiny", "prompt": "hello"}
        refused = client.post("/v1/completions", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_unavailable")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example"},
        {"host": "rebound.example:8000"},
        {"host": "127.0.0.1.example"},
        {"host": "127.0.0.1@rebound.example"},
        {"host": "[::1"},
        {"host": ""},
        {"origin": "https://example.org"},
        {"origin": "http://localhost.example:8000"},
        {"origin": "null"},
    ],
)
def test_without_a_set_key_other_sites_are_refused(
    api: Api, client: httpx.Client, dataset: str, headers: dict[str, str]
) -> None:
    body = {"model": "tunesmith/tiny", "training_file": dataset}
    answer = client.post(JOBS, json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_request")
    assert "TUNESMITH_API_KEY" in answer.json()["error"]["message"]
    assert client.get(JOBS).json()["data"] == []


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost"},
        {"host": "LOCALHOST:8000"},
        {"host": "[::1]:8000"},
        {"host": "127.0.0.1", "origin": "http://localhost:3000"},
    ],
)
def test_without_a_set_key_this_machine_is_answered(
    client: httpx.Client, headers: dict[str, str]
) -> None:
    assert client.get(JOBS, headers=headers).status_code == 200


def test_with_the_key_any_site_is_answered(guarded: Api) -> None:
    headers = {
        "authorization": "Bearer secret",
        "host": "tunesmith.example",
        "origin": "https://example.org",
    }
    with CheckedClient(base_url=guarded.url, headers=headers) as client:
        assert client.get(JOBS).status_code == 200


@contextmanager
def failing_commit(error: Exception) -> Iterator[None]:
    def fail(session: Session) -> None:
        raise error

    event.listen(Session, "before_commit", fail)
    try:
        yield
    finally:
        event.remove(Session, "before_commit", fail)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("disk of the secret kind is full"), 500),
        (DataError("INSERT", {}, Exception("secret out of range")), 500),
        (OperationalError("SELECT", {}, Exception("too many secret terms")), 500),
        (
            OperationalError("COMMIT", {}, Exception("server closed"), connection_invalidated=True),
            503,
        ),
        (OperationalError(None, None, Exception("secret server refused the connection")), 503),
        (PoolTimeout("secret pool is exhausted"), 503),
    ],
)
def test_answer_to_a_failed_commit_is_no_success(
    api: Api, client: httpx.Client, dataset: str, error: Exception, status: int
) -> None:
    body = {"model": "tunesmith/tiny", "training_file": dataset}
    with failing_commit(error):
        answer = client.post(JOBS, json=body)
        deletion = client.delete(f"/v1/files/{dataset}")
    assert (answer.status_code, deletion.status_code) == (status, status)
    assert "secret" not in answer.text and "server closed" not in answer.text
    assert client.get(JOBS).json()["data"] == []
    assert client.get(f"/v1/files/{dataset}/content").status_code == 200
    assert list((api.folder / "broker" / "messages").glob("*.msg")) == []


def test_crash_is_an_envelope_without_internals(
    client: httpx.Client, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: object) -> None:
        raise KeyError("internals")

    monkeypatch.setattr(service, "new_job", crash)
    answer = client.post(JOBS, json={"model": "tunesmith/tiny", "training_file": dataset})
    assert answer.status_code == 500
    assert "internals" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]


def test_more_writers_than_threads_all_succeed(
    client: httpx.Client, create_job: Callable[..., str]
) -> None:
    """A handler that waits for the database must not keep others from committing."""
    with ThreadPoolExecutor(60) as pool:
        ids = set(pool.map(lambda _: create_job(), range(60)))
    assert len(ids) == 60
    assert len(client.get(JOBS, params={"limit": 100}).json()["data"]) == 60
