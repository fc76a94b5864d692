"""The sandbox without bubblewrap: namespaces of the kernel, and a root folder of their own.

Runs in a fresh Python process, which stays outside as the parent of the process inside.
"""

from __future__ import annotations

import os

from core.sandbox.inside import libc

TYPE_CHECKING = False  # see `libc`
if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMESPACES = (
    libc.CLONE_NEWNS
    | libc.CLONE_NEWPID
    | libc.CLONE_NEWNET
    | libc.CLONE_NEWIPC
    | libc.CLONE_NEWUTS
    | libc.CLONE_NEWCGROUP
)
_STAGE = "/tmp"  # any folder of the host; the mount on it is seen in the new namespace only
_OLD = "/.old"


def enter(
    binds: Sequence[tuple[str, str]], hidden: Sequence[str], host_name: str, nobody: int
) -> None:
    """Leave the host for new namespaces. The process itself stays, its next child is inside.

    `binds`: pairs of a path of the host, without symbolic links, and its path inside, read-only.
    `hidden`: folders of these that are empty inside. `nobody`: the number of the user inside,
    where the caller is not root.
    """
    if os.geteuid() == 0:
        libc.call("unshare", _NAMESPACES)
    else:
        _new_user(nobody)
    libc.mount("none", "/", "", libc.MS_REC | libc.MS_PRIVATE)
    libc.call("sethostname", host_name.encode(), len(host_name))
    _new_root(binds, hidden)


def _new_user(nobody: int) -> None:
    user, group = os.geteuid(), os.getegid()
    libc.call("unshare", _NAMESPACES | libc.CLONE_NEWUSER)
    _write("/proc/self/setgroups", "deny")  # the kernel's condition for the next two
    _write("/proc/self/uid_map", f"{nobody} {user} 1")
    _write("/proc/self/gid_map", f"{nobody} {group} 1")


def _new_root(binds: Sequence[tuple[str, str]], hidden: Sequence[str]) -> None:
    os.umask(0o022)  # the user inside must be able to enter the folders that are made here
    flags = libc.MS_NOSUID | libc.MS_NODEV
    libc.mount("tmpfs", _STAGE, "tmpfs", flags, "mode=0755,size=1m")
    os.mkdir(_STAGE + _OLD)
    libc.pivot_root(_STAGE, _STAGE + _OLD)
    os.chdir("/")
    for source, target in binds:
        _bind(_OLD + source, target)
    for folder in hidden:
        libc.mount("tmpfs", folder, "tmpfs", flags, "mode=0755,size=4k")
    os.mkdir("/tmp")
    libc.call("umount2", _OLD.encode(), libc.MNT_DETACH)
    os.rmdir(_OLD)
    libc.read_only("/")


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
    libc.mount(source, target, "", libc.MS_BIND | libc.MS_REC)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
