"""A Hugging Face hub on this machine: the routes of a model's files, well or in a bad mood."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.local_server import listening

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_a_friend"

_ROUTE = re.compile(
    r"/(?:(?P<api>api/models/))?(?P<repo>[^/]+/[^/]+)"
    r"(?:/(?P<verb>revision|tree|resolve)/(?P<revision>[^/]+)(?:/(?P<path>.+))?)?"
)

SMALL_BASE: Mapping[str, bytes] = {
    "README.md": b"---\nlicense: mit\n---\n# A base\n",
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    ).encode(),
    "model-1-of-2.safetensors": b"a" * 300_000,
    "model-2-of-2.safetensors": b"b" * 200_000,
    "original/consolidated.00.pth": b"c" * 400_000,
    "consolidated.safetensors": b"d" * 400_000,
    "pytorch_model.bin": b"e" * 400_000,
}
"""A repository with copies of its weights that nobody here reads."""
SMALL_BASE_BYTES = sum(len(SMALL_BASE[name]) for name in list(SMALL_BASE)[:6])

_GATED = ("model-2-of-2.safetensors", "model.safetensors")


@dataclass
class FakeHub:
    """`repositories` by id; the other fields are moods."""

    repositories: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    url: str = ""
    requests: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    """The last file of the weights is sent up to its middle until it is set."""
    breaks_after: int | None = None
    """Every first answer for a file ends after so many bytes."""
    is_gated: bool = False
    """Only the bearer of TOKEN may read files."""
    status: int | None = None
    """The answer to every request."""
    broken: set[str] = field(default_factory=set)


def repository_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@contextmanager
def running_hub(**repositories: Mapping[str, bytes]) -> Iterator[FakeHub]:
    hub = FakeHub(dict(repositories))
    hub.gate.set()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with listening(Handler) as hub.url:
        try:
            yield hub
        finally:
            hub.gate.set()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub = self.hub
        path = unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        found = _ROUTE.fullmatch(path)
        if hub.status is not None:
            return self._json({"error": "in a bad mood"}, hub.status)
        if found is None or found["repo"] not in hub.repositories:
            return self._refuse(HTTPStatus.UNAUTHORIZED, "RepoNotFound")
        if found["revision"] not in (None, "main", COMMIT):
            return self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        files = hub.repositories[found["repo"]]
        if found["verb"] == "tree":
            return self._json([_entry(name, content) for name, content in files.items()])
        if found["api"]:
            siblings = [{"rfilename": name} for name in files]
            return self._json({"id": found["repo"], "sha": COMMIT, "siblings": siblings})
        if hub.is_gated and self.headers.get("authorization") != f"Bearer {TOKEN}":
            return self._refuse(HTTPStatus.FORBIDDEN, "GatedRepo")
        if found["path"] not in files:
            return self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound")
        self._file(found["path"], files[found["path"]])

    def _file(self, name: str, content: bytes) -> None:
        start = int((self.headers.get("range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_blob(name, content)}"')
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        rest = content[start:]
        if self.hub.breaks_after is not None and name not in self.hub.broken:
            self.hub.broken.add(name)
            self.wfile.write(rest[: self.hub.breaks_after])
            if len(rest) > self.hub.breaks_after:
                self.close_connection = True
            return
        if name in _GATED and not self.hub.gate.is_set():
            middle = len(rest) // 2
            self.wfile.write(rest[:middle])
            self.wfile.flush()
            self.hub.gate.wait()
            rest = rest[middle:]
        self.wfile.write(rest)

    def _refuse(self, status: HTTPStatus, code: str) -> None:
        self._json({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})

    def _json(
        self, body: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _blob(name: str, content: bytes) -> str:
    return (hashlib.sha256 if _is_large(name) else hashlib.sha1)(content).hexdigest()


def _is_large(name: str) -> bool:
    return not name.endswith((".json", ".md", ".jinja", ".txt"))


def _entry(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file",
        "path": name,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }
    if _is_large(name):
        oid = _blob(name, content)
        entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
    return entry
