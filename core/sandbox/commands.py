"""The two kinds of sandbox, as commands that start a process inside."""

import inspect
import marshal
import os
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import PurePosixPath
from typing import Any, Literal

from core.sandbox.image import NOBODY, PACKAGES_FOLDER, Image
from core.sandbox.inside import confine, grading, libc, main, namespaces
from core.sandbox.limits import Limits
from core.sandbox.seccomp import filter_program

Kind = Literal["bubblewrap", "namespaces"]

_HOST_NAME = "sandbox"
_PACKAGE = main.__name__.rpartition(".")[0]
_MODULES = (libc, namespaces, confine, grading, main)  # each after those that it imports
# Our modules are not installed inside: they come as code, in the order of their imports.
_START = f"""
import os, sys
os.write(1, {main.BEGUN!r})
from marshal import loads
file = open(0, "rb", closefd=False)
part = lambda: loads(file.read(int.from_bytes(file.read({main.LENGTH_BYTES}), "little")))
package = sys.modules[{_PACKAGE!r}] = type(sys)({_PACKAGE!r})
for name, code in part():
    module = type(sys)(name)
    setattr(package, name, module)
    exec(code, module.__dict__)
sys.path.append({PACKAGES_FOLDER!r})
module.main(part(), file)
"""
_PYTHON_OPTIONS = ("-I", "-S", "-B", "-X", "utf8", "-c", _START)


class NoBubblewrap(Exception):
    """The program `bwrap` is not installed."""


def command(kind: Kind, image: Image, report_to: int) -> list[str]:
    """Return the command. `report_to` is where it reports the first process inside, as JSON."""
    python = [image.interpreter, *_PYTHON_OPTIONS]
    if kind == "namespaces":
        return python
    program = shutil.which("bwrap")
    if program is None:
        raise NoBubblewrap("The program bwrap is not installed.")
    options = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    options += ["--unshare-cgroup-try", "--hostname", _HOST_NAME]
    # As the first process inside: bubblewrap's own would be left to the machine to collect. And not
    # `--die-with-parent`: killed at a bad moment, it leaves a process that waits for it for ever.
    options += ["--as-pid-1", "--info-fd", str(report_to), "--clearenv"]
    options += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]  # to mount /tmp; then dropped
    if os.geteuid() == 0:
        options += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]  # to become nobody
    else:
        options += ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    for folder in _parents(target for _, target in image.binds):
        options += ["--dir", folder]  # bubblewrap would make some of them for root only
    for source, target in image.binds:
        bind = "--dev-bind" if target.startswith("/dev/") else "--ro-bind"
        options += [bind, source, target]
    for folder in image.hidden:
        options += ["--tmpfs", folder, "--remount-ro", folder]
    options += ["--dir", "/tmp", "--remount-ro", "/"]
    return [program, *options, "--", *python]


def _parents(paths: Iterable[str]) -> list[str]:
    """Return all folders above some paths, each after those that contain it."""
    found = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    return sorted(found - {"/"})


def opening(kind: Kind, image: Image, limits: Limits, report_to: int) -> bytes:
    """Return what the process reads first: our code, and the plan of `main`."""
    plan: dict[str, Any] = {
        "in_bubblewrap": kind == "bubblewrap",
        "binds": image.binds,
        "hidden": image.hidden,
        "host_name": _HOST_NAME,
        "nobody": NOBODY,
        "report_to": report_to,
        "limits": vars(limits),
        "filter": filter_program(os.uname().machine),
    }
    return _code() + part(plan)


def part(value: Any) -> bytes:
    """Return a part of the standard input: its length, then the value as `marshal` writes it."""
    content = marshal.dumps(value)
    return len(content).to_bytes(main.LENGTH_BYTES, "little") + content


@cache
def _code() -> bytes:
    return part(
        [
            (name, compile(inspect.getsource(module), name, "exec", optimize=2))
            for module in _MODULES
            for name in [module.__name__.rpartition(".")[2]]
        ]
    )
