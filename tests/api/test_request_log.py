"""The line of JSON that each request leaves in the log."""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import request_log
from tests.api.live import Api
from tests.api.scripted_engine import ScriptedEngine
from tests.leaving import leave_when

CHAT = "/v1/chat/completions"
ROOT = Path(__file__).parents[2]


def chat(content: str, **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": "tunesmith/tiny", "messages": messages} | options


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.written.append(json.loads(record.getMessage()))

    def last(self) -> dict[str, Any]:
        """The only line so far, which may come a moment after the answer; forget it."""
        deadline = time.monotonic() + 30
        while not self.written and time.monotonic() < deadline:
            time.sleep(0.01)
        (line,) = self.written
        self.written.clear()
        return line


@pytest.fixture
def lines(api: Api) -> Iterator[Lines]:
    handler = Lines()
    level = request_log.logger.level
    request_log.logger.addHandler(handler)
    request_log.logger.setLevel(logging.INFO)
    yield handler
    request_log.logger.removeHandler(handler)
    request_log.logger.setLevel(level)


def test_a_line_says_who_asked_for_what_and_how_it_ended(
    client: httpx.Client, lines: Lines
) -> None:
    agent = {"user-agent": "probe/1\n" + "x" * 500}
    agent["user-agent"] = agent["user-agent"].replace("\n", " ")
    answer = client.post(CHAT, json=chat("a secret"), headers=agent)
    line = lines.last()
    assert line.pop("time").endswith("+00:00")
    assert line.pop("ms") >= 0
    assert line == {
        "request": answer.headers["x-request-id"],
        "method": "POST",
        "route": CHAT,
        "status": 200,
        "bytes_in": len(answer.request.content),
        "bytes_out": len(answer.content),
        "client_left": False,
        "key": "static",
        "project": "default",
        "model": "tunesmith/tiny",
        "client": agent["user-agent"][: request_log.LONGEST_TEXT],
    }


def test_neither_bodies_nor_keys_nor_ids_are_logged(client: httpx.Client, lines: Lines) -> None:
    key = {"authorization": "Bearer sk-secret"}
    client.get("/v1/files/file-mine?after=hidden", headers=key)
    line = lines.last()
    assert (line["route"], line["status"]) == ("/v1/files/{file_id}", 404)
    assert not any(word in json.dumps(line) for word in ("sk-secret", "file-mine", "hidden"))
    client.post(CHAT, json=chat("my words"), headers=key)
    assert "my words" not in json.dumps(lines.last())


def test_an_unknown_route_is_logged_by_its_path(client: httpx.Client, lines: Lines) -> None:
    client.get("/v2/" + "x" * 500)
    line = lines.last()
    assert (line["route"], line["status"]) == (None, 404)
    assert line["path"] == ("/v2/" + "x" * 500)[: request_log.LONGEST_TEXT]


def test_a_stream_is_logged_at_its_end(client: httpx.Client, lines: Lines) -> None:
    answer = client.post(CHAT, json=chat("What?", stream=True))
    line = lines.last()
    assert (line["status"], line["client_left"]) == (200, False)
    assert line["bytes_out"] == len(answer.content)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_logged_as_one(
    client: httpx.Client, engine: ScriptedEngine, lines: Lines, stream: bool
) -> None:
    body = chat("never end", stream=stream)
    leave_when(lambda: engine.requests, client, CHAT, body)
    assert engine.was_left.wait(timeout=60)
    line = lines.last()
    assert line["client_left"]
    assert line["status"] == (200 if stream else 499)


def test_a_failure_of_a_stream_is_no_client_that_left(client: httpx.Client, lines: Lines) -> None:
    client.post(CHAT, json=chat("fail", stream=True))
    assert not lines.last()["client_left"]


def test_probes_that_succeed_are_not_logged(client: httpx.Client, lines: Lines) -> None:
    for path in ("/health", "/healthz"):
        assert client.get(path).status_code == 200
    assert client.get("/readyz").status_code == 503
    assert lines.last()["route"] == "/readyz"


def test_the_process_writes_lines_of_json_only() -> None:
    """Other messages have a prefix, which would break a reader of lines."""
    code = """
import logging
from api.request_log import RequestRecord, write_lines_to_stderr
logging.basicConfig(level=logging.INFO, format="prefix %(message)s")
write_lines_to_stderr()
RequestRecord({"method": "GET", "path": "/nowhere", "headers": []}, "req-1").write()
"""
    written = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=True
    ).stderr
    (line,) = written.splitlines()
    assert json.loads(line)["request"] == "req-1"


def test_a_name_of_a_model_is_bounded(client: httpx.Client, lines: Lines) -> None:
    client.post(CHAT, json=chat("What?", model="m" * 400))
    assert lines.last()["model"] == "m" * request_log.LONGEST_TEXT
