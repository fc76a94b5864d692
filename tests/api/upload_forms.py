"""Multipart bodies of uploads, byte by byte."""

import httpx

from tests.api.fixtures import GOOD_ROWS
from tests.api.live import Api

BOUNDARY = "frontier"


def form(*fields: tuple[str, str, bytes], end: bytes = b"--frontier--\r\n") -> bytes:
    """A multipart body of (name, further attributes, content)."""
    return (
        b"".join(
            f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
            + content
            + b"\r\n"
            for name, more, content in fields
        )
        + end
    )


FILE = ("file", '; filename="data.jsonl"', GOOD_ROWS)
PURPOSE = ("purpose", "", b"fine-tune")


def post_form(client: httpx.Client, body: bytes) -> httpx.Response:
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return client.post("/v1/files", content=body, headers={"content-type": content_type})


def stored_blobs(api: Api) -> list[str]:
    """Everything in storage that is a file, whatever it is called."""
    storage = api.folder / "storage"
    return [str(path.relative_to(storage)) for path in storage.rglob("*") if path.is_file()]
