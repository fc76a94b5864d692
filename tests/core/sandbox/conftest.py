"""Both kinds of sandbox, and what a grader must neither touch nor leave."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from core.sandbox import grading
from core.sandbox.availability import problem_with
from core.sandbox.commands import Kind
from core.sandbox.process import SandboxedProcess

SECRET = "what only the service may know"
ELSEWHERE = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path.cwd())


@pytest.fixture(scope="session", params=["bubblewrap", "namespaces"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    problem = problem_with(found)
    if problem is not None:
        pytest.skip(f"{found}: {problem}")
    return found


class Watched(SandboxedProcess):
    """Notes the two processes of each namespace, and their parent outside."""

    processes: list[psutil.Process]

    def __enter__(self) -> "Watched":
        super().__enter__()
        first = psutil.Process(self._inside)
        self.processes += [first, *first.children(), psutil.Process(self._outer.pid)]
        return self


@dataclass(frozen=True)
class Host:
    """What a grader may try to reach; `item` tells it where that is."""

    folder: Path
    mark: str
    listeners: dict[str, socket.socket]
    processes: list[psutil.Process]

    @property
    def item(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "mark": self.mark,
            "port": self.listeners["inet"].getsockname()[1],
            "process": os.getpid(),
        }

    def check(self) -> None:
        """Nothing was touched, nothing is left."""
        assert sorted(path.name for path in self.folder.iterdir()) == ["secret", "socket"]
        assert (self.folder / "secret").read_text() == SECRET
        assert not [path for path in ELSEWHERE if (path / self.mark).exists()]
        for listener in self.listeners.values():
            with pytest.raises(BlockingIOError):
                listener.accept()
        assert not [process for process in self.processes if process.is_running()]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A machine with a secret and three servers; checked at the end of the test."""
    monkeypatch.setenv("TUNESMITH_API_KEY", SECRET)
    Watched.processes = []
    monkeypatch.setattr(grading, "SandboxedProcess", Watched)
    (tmp_path / "secret").write_text(SECRET)
    mark = f"mark-{uuid4().hex}"
    listeners = {
        "inet": socket.create_server(("127.0.0.1", 0)),
        "unix": socket.socket(socket.AF_UNIX),
        "abstract": socket.socket(socket.AF_UNIX),
    }
    listeners["unix"].bind(str(tmp_path / "socket"))
    listeners["abstract"].bind(f"\0{mark}")
    for listener in listeners.values():
        listener.listen()
        listener.setblocking(False)
    descriptors = os.listdir("/proc/self/fd")
    found = Host(tmp_path, mark, listeners, Watched.processes)
    yield found
    try:
        found.check()
        assert os.listdir("/proc/self/fd") == descriptors
    finally:
        for listener in listeners.values():
            listener.close()
