"""A Hugging Face hub on this machine that takes uploads: the routes of one commit over LFS."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.local_server import listening

TOKEN = "hf_with_write_access"

_COMMIT = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<verb>preupload|commit)/main")
_LFS = re.compile(r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")


@dataclass
class UploadHub:
    """`commits` by repository: the files that each adds. The other fields are moods."""

    url: str = ""
    commits: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    """The statuses of the next answers to commits."""
    status: int | None = None
    """The answer to every request."""
    authorized_only: str = TOKEN


@contextmanager
def running_upload_hub() -> Iterator[UploadHub]:
    hub = UploadHub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with listening(Handler) as hub.url:
        yield hub


class _Handler(BaseHTTPRequestHandler):
    hub: UploadHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_PUT(self) -> None:
        content = self._body()
        self.hub.objects[hashlib.sha256(content).hexdigest()] = content
        self._answer({})

    def do_GET(self) -> None:
        self._answer({"error": "not found"}, 404)

    def do_POST(self) -> None:
        hub, body = self.hub, self._body()
        path = self.path.partition("?")[0]
        if hub.status is not None:
            return self._answer({"error": "in a bad mood"}, hub.status)
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.headers.get("authorization") != f"Bearer {hub.authorized_only}":
            return self._answer({"error": "Unauthorized"}, 401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if _LFS.fullmatch(path):
            return self._answer({"objects": [self._place(o) for o in json.loads(body)["objects"]]})
        found = _COMMIT.fullmatch(path)
        assert found is not None, path
        if found["verb"] == "preupload":
            return self._answer({"files": [_mode(each) for each in json.loads(body)["files"]]})
        if hub.failures:
            return self._answer({"error": "in a bad mood"}, hub.failures.pop(0))
        return self._commit(found["repo"], body)

    def _create(self, body: dict) -> None:
        repo = f"{body['organization']}/{body['name']}"
        if repo in self.hub.commits:
            return self._answer({"error": "exists", "url": f"{self.hub.url}/{repo}"}, 409)
        self.hub.commits[repo] = []
        self.hub.private[repo] = body.get("visibility") == "private"
        return self._answer({"url": f"{self.hub.url}/{repo}"})

    def _place(self, wanted: dict) -> dict:
        if wanted["oid"] in self.hub.objects:
            return wanted
        return wanted | {"actions": {"upload": {"href": f"{self.hub.url}/put/{wanted['oid']}"}}}

    def _commit(self, repo: str, body: bytes) -> None:
        files: dict[str, bytes] = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        commits = self.hub.commits[repo]
        commits.append(files)
        oid = hashlib.sha1(str(len(commits)).encode()).hexdigest()
        self._answer({"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _answer(self, body: object, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _mode(file: dict) -> dict:
    mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}
