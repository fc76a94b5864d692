"""The program of the process inside, and of its parent outside where bubblewrap is missing.

The caller gets `BEGUN` on the standard output, and sends this code and a plan on the standard
input. When the sandbox is complete, `READY` follows; then comes a request, which is answered by
`grading.answer`. What goes wrong before that is answered by `BROKEN` and a text.
"""

from __future__ import annotations

import marshal
import os

from core.sandbox.inside import confine, grading, libc, namespaces

TYPE_CHECKING = False  # see `libc`
if TYPE_CHECKING:
    from typing import Any, BinaryIO

BEGUN = b"B"
READY = b"R"
BROKEN = b"X"
LENGTH_BYTES = 8
"""Before every part of the standard input: its length, little-endian."""
_CHANNEL = 3
_FEW = 256  # more descriptors than bubblewrap opens, or the service passes on


def main(plan: dict[str, Any], requests: BinaryIO) -> None:
    """Run one grader, and end the process. `requests` is the standard input."""
    opened = max(_FEW, plan["report_to"])
    try:
        if not plan["in_bubblewrap"]:
            libc.die_with_parent()
            namespaces.enter(plan["binds"], plan["hidden"], plan["host_name"], plan["nobody"])
            inside = os.fork()
            if inside:
                os.write(plan["report_to"], b'{"child-pid": %d}' % inside)
                os.closerange(0, opened + 1)
                confine.follow(inside)
        confine.confine(plan["limits"], plan["nobody"], opened)
    except BaseException as error:
        os.write(1, BROKEN + f"{type(error).__name__}: {error}".encode(errors="replace"))
        os._exit(1)
    os.write(1, READY)
    length = int.from_bytes(requests.read(LENGTH_BYTES), "little")
    request = marshal.loads(requests.read(length))  # at its end, the caller is gone: EOFError
    _keep_the_channel_only(opened)
    libc.install_filter(plan["filter"])
    source, sample, item = request
    os.write(_CHANNEL, grading.answer(source, sample, item, plan["limits"]))
    os._exit(0)  # neither threads nor handlers of the grader's delay the end


def _keep_the_channel_only(opened: int) -> None:
    """Close what the caller opened, but for one descriptor for the answer."""
    os.dup2(1, _CHANNEL)  # before the next descriptor is given its number
    null = os.open("/dev/null", os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.closerange(_CHANNEL + 1, opened + 1)
