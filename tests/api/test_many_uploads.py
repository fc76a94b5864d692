"""Uploads that are slow, broken off, or many at once."""

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
from openai import AsyncOpenAI
from openai.types import FileObject

from api.files import upload as api_upload
from tests.api.live import Api
from tests.api.upload_forms import BOUNDARY, FILE, PURPOSE, form, post_form, stored_blobs


@contextmanager
def begun_upload(api: Api) -> Iterator[socket.socket]:
    """An upload of which the first thousand bytes have been sent."""
    host, port = api.url.removeprefix("http://").split(":")
    body = form(PURPOSE, FILE)
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n"
        f"content-type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body[:1000])
        yield connection


def test_client_that_hangs_up_leaves_nothing_behind(api: Api, client: httpx.Client) -> None:
    with begun_upload(api):
        while not stored_blobs(api):  # the file has begun to arrive
            pass
    while stored_blobs(api):
        pass
    assert client.get("/v1/files").json()["data"] == []


def test_uploads_beyond_the_places_wait(api: Api, client: httpx.Client) -> None:
    with ExitStack() as slow, ThreadPoolExecutor() as threads:
        for _ in range(api_upload.MAX_UPLOADS):
            slow.enter_context(begun_upload(api))
        while len(stored_blobs(api)) < api_upload.MAX_UPLOADS:
            pass
        waiting = threads.submit(post_form, client, form(PURPOSE, FILE))
        time.sleep(0.3)
        assert not waiting.done()
        slow.close()
        assert waiting.result().status_code == 200


@pytest.mark.parametrize(("name", "value"), [("MAX_WAITING", 0), ("WAIT_SECONDS", 0.1)])
def test_only_so_many_uploads_wait_and_only_so_long(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    monkeypatch.setattr(api_upload, name, value)
    with ExitStack() as slow:
        for _ in range(api_upload.MAX_UPLOADS):
            slow.enter_context(begun_upload(api))
        while len(stored_blobs(api)) < api_upload.MAX_UPLOADS:
            pass
        refused = post_form(client, form(PURPOSE, FILE))
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "too_many_uploads"


@pytest.mark.slow
def test_two_hundred_uploads_of_a_stock_client_at_once_succeed(api: Api) -> None:
    row = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'

    async def upload_all() -> list[FileObject]:
        async with AsyncOpenAI(base_url=f"{api.url}/v1", api_key="any") as client:
            file = ("rows.jsonl", row)
            uploads = (client.files.create(file=file, purpose="fine-tune") for _ in range(200))
            return await asyncio.gather(*uploads)

    assert len({file.id for file in asyncio.run(upload_all())}) == 200


def test_checks_of_jobs_share_the_places_of_uploads(
    api: Api, client: httpx.Client, dataset: str
) -> None:
    job = {"model": "tunesmith/tiny", "training_file": dataset, "columns": {"tools": "messages"}}
    with ExitStack() as slow:
        for _ in range(api_upload.MAX_UPLOADS):
            slow.enter_context(begun_upload(api))
        while len(stored_blobs(api)) < api_upload.MAX_UPLOADS + 1:
            pass
        refused = client.post("/v1/fine_tuning/jobs", json=job)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "too_many_uploads"


def test_upload_that_stalls_is_ended(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_upload, "IDLE_SECONDS", 0.05)
    answer = b""
    with begun_upload(api) as connection:
        while b"}" not in answer:
            answer += connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"upload_stalled" in answer
    assert stored_blobs(api) == []


def test_upload_that_trickles_is_ended(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_upload, "RATE_SECONDS", 0.3)
    monkeypatch.setattr(api_upload, "LEAST_BYTES_PER_SECOND", 10_000)
    answer = b""
    with begun_upload(api) as connection:
        connection.settimeout(0.05)
        for _ in range(100):
            connection.sendall(b"a")
            with suppress(TimeoutError):
                answer += connection.recv(10_000)
            if answer:
                break
    assert b"upload_stalled" in answer and b"bytes per second" in answer
    assert stored_blobs(api) == []
