"""Gives up everything that a grader must not have. Runs inside the sandbox, before the grader."""

from __future__ import annotations

import _thread
import os
import resource
import select

from core.sandbox.inside import libc

TYPE_CHECKING = False  # see `libc`
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn

SIGNALLED = 128
"""Plus a signal: the exit status that bubblewrap gives for a process that was killed."""


def confine(limits: Mapping[str, Any], nobody: int, opened: int) -> None:
    """Return in a second process, without rights. Only the filter of system calls is missing.

    The first process guards it, and with that one, all inside end. The folder `/tmp` has a limit
    of files, which bubblewrap cannot set. `opened`: the highest open descriptor.
    """
    os.setsid()  # no terminal
    os.umask(0o077)
    flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
    size, files = limits["folder_bytes"], limits["folder_files"]
    options = f"mode=0700,size={size},nr_inodes={files},uid={nobody},gid={nobody}"
    libc.mount("tmpfs", "/tmp", "tmpfs", flags, options)
    _try(libc.read_only, "/dev/null")  # needs Linux 5.12; protects no more than the node's times
    child = os.fork()
    if child:
        _give_up_rights()
        _guard(child, opened)
    if os.geteuid() == 0:
        _become(nobody)
    _give_up_rights()
    os.chdir("/tmp")
    libc.one_arena()
    _limit(limits)


def follow(child: int) -> NoReturn:
    """Wait for a child, and end as it did."""
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else SIGNALLED - code)


def _guard(child: int, opened: int) -> NoReturn:
    """End with the grader, or when the service is gone or has enough.

    The service holds the other end of the standard input, until it ends for whatever reason.
    """
    os.closerange(1, opened + 1)

    def wait_for_the_service() -> None:
        waiting = select.poll()
        waiting.register(0, 0)  # its end is reported in any case
        waiting.poll()
        os._exit(1)

    _thread.start_new_thread(wait_for_the_service, ())
    follow(child)


def _become(nobody: int) -> None:
    """Be another user than root."""
    os.setgroups([])
    os.setresgid(nobody, nobody, nobody)
    os.setresuid(nobody, nobody, nobody)
    # A user namespace counts its own threads. Where the kernel has none, sandboxes share the
    # limit, and a thread may be refused too early.
    _try(libc.call, "unshare", libc.CLONE_NEWUSER)


def _try(function: Callable[..., None], *arguments: Any) -> None:
    """Do what not every machine allows."""
    try:  # noqa: SIM105  (see `libc`)
        function(*arguments)
    except OSError:
        pass


def _give_up_rights() -> None:
    """After a change of user, which resets the first two.

    No core dump, for which some systems run a program of root's; death with the parent.
    """
    libc.drop_capabilities()
    libc.call("prctl", libc.PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.die_with_parent()
    libc.call("prctl", libc.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _limit(limits: Mapping[str, Any]) -> None:
    bounds = {
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_NPROC: limits["threads"],
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_FSIZE: limits["folder_bytes"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 16,
        resource.RLIMIT_RTPRIO: 0,
    }
    for which, bound in bounds.items():
        _, highest = resource.getrlimit(which)
        allowed = bound if highest == resource.RLIM_INFINITY else min(bound, highest)
        resource.setrlimit(which, (allowed, allowed))
