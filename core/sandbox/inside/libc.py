"""Calls of the C library that Python 3.11 does not have. Runs inside the sandbox, too."""

from __future__ import annotations

import ctypes
import os
import sys

TYPE_CHECKING = False  # `typing` and `collections` would double the time that a call takes
if TYPE_CHECKING:
    from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_AT_RECURSIVE = 0x8000
_AT_FDCWD = -100
_ATTR_READ_ONLY = 0x1 | 0x2  # MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID
_CAPABILITY_VERSION = 0x20080522
_M_ARENA_MAX = -8
_SIGKILL = 9  # of `signal`, which takes long to import

_libc: Any = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes) -> None:
    """Call a function of the C library. Raises OSError, which names the function."""
    _checked(name, name, arguments)


def _system_call(name: str, number: int, *arguments: int | bytes) -> None:
    """Call the kernel where the C library has no function. Raises OSError with the name."""
    _checked(name, "syscall", (number, *arguments))


def _checked(name: str, symbol: str, arguments: tuple[int | bytes, ...]) -> None:
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    function = getattr(_libc, symbol)
    function.restype = ctypes.c_long
    if function(*words) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount, or bind with `MS_BIND`."""
    texts = (source, target, kind)
    paths = [os.fsencode(text) for text in texts]
    call("mount", *paths, flags, os.fsencode(options))


def read_only(path: str) -> None:
    """Make a mount, and all that it contains, read-only and without set-user-id programs.

    Needs Linux 5.12.
    """
    attributes = (ctypes.c_uint64 * 4)(_ATTR_READ_ONLY, 0, 0, 0)
    address, size = ctypes.addressof(attributes), ctypes.sizeof(attributes)
    target = os.fsencode(path)
    number = _SYS_MOUNT_SETATTR
    _system_call("mount_setattr", number, _AT_FDCWD, target, _AT_RECURSIVE, address, size)


def pivot_root(new_root: str, old_root: str) -> None:
    """Exchange the root of the file system."""
    number = _SYS_PIVOT_ROOT[os.uname().machine]
    _system_call("pivot_root", number, os.fsencode(new_root), os.fsencode(old_root))


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies. A change of user resets it."""
    call("prctl", PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def drop_capabilities() -> None:
    """Give up every capability of this process."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    call("capset", ctypes.addressof(header), ctypes.addressof(none))


def install_filter(program: bytes) -> None:
    """Filter the system calls of this process, for good. `program`: BPF instructions."""
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions of 8 bytes, then a pointer to them
    description = (ctypes.c_uint64 * 2)(len(program) // 8, ctypes.addressof(instructions))
    if sys.byteorder != "little":
        raise OSError("the filter is written for little-endian machines")
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(description), 0, 0)


def one_arena() -> None:
    """Let all threads share one heap: each further one reserves 128 MiB of address space."""
    mallopt = getattr(_libc, "mallopt", None)  # musl has none, and needs none
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
