"""Input files of batches."""

import json
from collections.abc import Iterable
from typing import Any

import httpx

CHAT = "/v1/chat/completions"


def chat_line(number: int, content: str = "hello", **changes: Any) -> dict[str, Any]:
    body = {"model": "tunesmith/tiny", "messages": [{"role": "user", "content": content}]}
    line = {"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": body}
    return line | changes


def as_file(lines: Iterable[Any]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def upload_requests(client: httpx.Client, content: bytes, purpose: str = "batch") -> dict[str, Any]:
    """Upload an input file and return its object."""
    answer = client.post(
        "/v1/files", data={"purpose": purpose}, files={"file": ("requests.jsonl", content)}
    )
    assert answer.status_code == 200, answer.text
    uploaded: dict[str, Any] = answer.json()
    return uploaded


def read_lines(client: httpx.Client, file_id: str) -> list[dict[str, Any]]:
    content = client.get(f"/v1/files/{file_id}/content")
    assert content.status_code == 200
    return [json.loads(line) for line in content.text.splitlines()]
