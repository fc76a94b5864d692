"""Machines that this one is not, as programs: one that refuses namespaces, one that dies.

python -m tests.core.sandbox.machines refusing
python -m tests.core.sandbox.machines container KIND
python -m tests.core.sandbox.machines plain|serving|loading KIND
python -m tests.core.sandbox.machines killing KIND SEED
"""

import ctypes
import errno
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from threading import Thread
from typing import Any, cast

import psutil

from core.errors import TunesmithError
from core.sandbox.availability import availability, problem_with
from core.sandbox.commands import Kind
from core.sandbox.grading import run_in
from core.sandbox.inside import libc
from core.sandbox.limits import Limits
from core.sandbox.process import SandboxedProcess
from core.sandbox.run import run_grader
from core.sandbox.seccomp import Instruction
from core.sandbox.syscalls import CLONE, REFUSED
from tests.core.sandbox.hostile_calls import REFUSED_BY_DOCKER, all_calls, number_of
from tests.core.sandbox.hostile_programs import with_grade

KILLS = 2

_NEW_NAMESPACES = 0x7E020000
_REFUSED: Instruction = (0x06, 0, 0, 0x00050000 | errno.EPERM)
_SET_CHILD_SUBREAPER = 36
LOOP = "def grade(sample, item):\n while True: pass"


def refuse_namespaces() -> None:
    """Do what the seccomp profile of Docker does: no new namespaces for this process, for good."""
    is_x86 = os.uname().machine == "x86_64"
    unshare, mount, clone = (
        numbers.x86_64 if is_x86 else numbers.aarch64
        for numbers in (REFUSED["unshare"], REFUSED["mount"], CLONE)
    )
    new_process = (0x15, 0, 3, clone), (0x20, 0, 0, 16), (0x45, 0, 1, _NEW_NAMESPACES), _REFUSED
    _filter([*_refuse([unshare, mount]), *new_process])


def _refuse(numbers: Iterable[int | None]) -> list[Instruction]:
    return [each for number in numbers if number for each in ((0x15, 0, 1, number), _REFUSED)]


def _filter(program: list[Instruction]) -> None:
    whole = [
        (0x20, 0, 0, 0),
        *((0x15, 0, 1, 435), (0x06, 0, 0, 0x00050000 | errno.ENOSYS)),  # clone3
        *program,
        (0x06, 0, 0, 0x7FFF0000),
    ]
    libc.call("prctl", libc.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.install_filter(b"".join(struct.pack("<HBBI", *each) for each in whole))


def container(kind: Kind) -> None:
    """Try the sandbox where a container allows what docs/operations.md lists, and no more."""
    _filter(_refuse(number_of(name) for name in REFUSED_BY_DOCKER))
    print(problem_with(kind))


def refusing() -> None:
    refuse_namespaces()
    found = availability()
    print(found.kind)
    print(found.reason)
    try:
        run_grader("def grade(sample, item):\n return 1", {}, {})
    except TunesmithError as error:
        print(type(error).__name__, error.code)
        print(error.message)


def plain(kind: Kind) -> None:
    """Run graders as the user that this process has; print their outcomes and what is left.

    Without new privileges, as in the containers of docker-compose.yml.
    """
    libc.call("prctl", libc.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    found: dict[str, Any] = {"problem": problem_with(kind)}
    with tempfile.TemporaryDirectory() as folder:
        graders = {
            "honest": with_grade(
                "for _ in range(8): threading.Thread(target=time.sleep, args=[1]).start()\nreturn 8"
            ),
            "user": with_grade("return os.getuid()"),
            "secret": with_grade("return os.path.exists(item['folder'])"),
            "calls": all_calls(),
            "endless": LOOP,
        }
        for name, source in graders.items() if found["problem"] is None else ():
            limits = Limits(wall_seconds=0.5 if name == "endless" else 10)
            item = {"process": os.getpid(), "folder": folder}
            found[name] = run_in(kind, source, {}, item, limits).model_dump()
    found["left"] = [process.pid for process in psutil.Process().children(recursive=True)]
    print(json.dumps(found))


def serving(kind: Kind) -> None:
    """Run a grader that never ends, and print its process and the parent of that."""
    with SandboxedProcess(kind, Limits(wall_seconds=600, cpu_seconds=600)) as process:
        print(process._inside, process._outer.pid, flush=True)
        process.ask((LOOP, {}, {}))


def loading(kind: Kind) -> None:
    """Start one endless grader after the other, four at once."""
    run_in(kind, LOOP, {}, {}, Limits(wall_seconds=0.01))

    def load() -> None:
        while True:
            run_in(kind, LOOP, {}, {}, Limits(wall_seconds=0.001))

    for _ in range(4):
        Thread(target=load).start()
    print("ready", flush=True)


def killing(kind: Kind, seed: int) -> None:
    """Kill services that start graders, at random moments; print how many processes they had.

    All that outlives them becomes a child of this process, and must end soon.
    """
    if ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl")
    moments = random.Random(seed)
    descendants = 0
    for _ in range(KILLS):
        command = [sys.executable, "-m", __spec__.name, "loading", kind]
        service = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert service.stdout is not None
        service.stdout.readline()
        time.sleep(moments.uniform(0, 0.1))
        descendants += len(psutil.Process(service.pid).children(recursive=True))
        service.kill()
        _collect_all()
    print(descendants)


def _collect_all() -> None:
    deadline = time.monotonic() + 10
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            os.waitpid(-1, os.WNOHANG)
            time.sleep(0.002)
        sys.exit(f"left: {psutil.Process().children(recursive=True)}")


if __name__ == "__main__":
    match sys.argv[1]:
        case "refusing":
            refusing()
        case "container":
            container(cast(Kind, sys.argv[2]))
        case "plain":
            plain(cast(Kind, sys.argv[2]))
        case "serving":
            serving(cast(Kind, sys.argv[2]))
        case "loading":
            loading(cast(Kind, sys.argv[2]))
        case "killing":
            killing(cast(Kind, sys.argv[2]), int(sys.argv[3]))
