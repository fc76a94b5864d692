"""One line of JSON for each request, at its end: who asked for what, and how it ended.

It never has a body, a key, a query or an id of a path. Probes and heartbeats that succeed are left
out. All texts of clients are bounded, and JSON escapes their line ends.
"""

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Scope

logger = logging.getLogger("tunesmith.requests")

MODEL = "asked_model"
"""The key in the state of a request of the model's name in its body."""

PREFIX = "/v1"
LONGEST_TEXT = 128
CLIENT_LEFT = 499

_QUIET = ("/health", "/healthz", "/readyz", "/internal")


def write_lines_to_stderr() -> None:
    """Write the lines as they are, without the prefix of other messages."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _template(scope: Scope) -> str | None:
    """Return the path of the matched route, such as `/v1/files/{file_id}`; None for an unknown URL.

    FastAPI gives the path inside its router; all of ours with a prefix have the same one.
    """
    path: str | None = getattr(scope.get("route"), "path", None)
    if path is None or not scope["path"].startswith(f"{PREFIX}/") or path.startswith(f"{PREFIX}/"):
        return path
    return PREFIX + path


class RequestRecord:
    """What a request has received and sent so far."""

    def __init__(self, scope: Scope, request_id: str) -> None:
        self.request_id = request_id
        self.status: int | None = None
        """None until the answer has begun."""
        self._scope = scope
        self._time = time.time()
        self._began = time.perf_counter()
        self._bytes_in = self._bytes_out = 0
        self._is_complete = False

    @property
    def milliseconds(self) -> int:
        return round(1000 * (time.perf_counter() - self._began))

    def received(self, message: Message) -> None:
        self._bytes_in += len(message.get("body", b""))

    def sent(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self._bytes_out += len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)

    def write(self, *, has_failed: bool = False) -> None:
        """Log the line of a request that has ended, `has_failed` if by an error of ours."""
        status = CLIENT_LEFT if self.status is None else self.status
        path = self._scope["path"]
        route = _template(self._scope)
        if status < 400 and path.startswith(_QUIET):
            return
        state: dict[str, Any] = self._scope.get("state", {})
        caller = state.get("caller")  # of `api.auth`
        left = status == CLIENT_LEFT or not (self._is_complete or has_failed)
        line = {
            "time": datetime.fromtimestamp(self._time, UTC).isoformat(timespec="milliseconds"),
            "request": self.request_id,
            "method": self._scope["method"][:LONGEST_TEXT],
            "route": route,
            **({} if route else {"path": path[:LONGEST_TEXT]}),
            "status": status,
            "ms": self.milliseconds,
            "bytes_in": self._bytes_in,
            "bytes_out": self._bytes_out,
            "client_left": left,
            "key": getattr(caller, "key_id", None),
            "project": getattr(caller, "project", None),
            "model": state.get(MODEL),
            "client": Headers(scope=self._scope).get("user-agent", "")[:LONGEST_TEXT],
        }
        logger.info("%s", json.dumps(line, separators=(",", ":")))
