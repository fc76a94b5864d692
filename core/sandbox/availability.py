"""Which sandbox this machine allows, found out by running a grader in it."""

import logging
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock, Thread

from core.sandbox.commands import Kind, NoBubblewrap
from core.sandbox.grading import run_in
from core.sandbox.limits import LIMITS
from core.sandbox.process import SandboxBroken
from core.sandbox.seccomp import UnknownMachine

logger = logging.getLogger(__name__)

_KINDS: tuple[Kind, ...] = ("bubblewrap", "namespaces")
_TRIAL = "def grade(sample, item):\n    return sample + item"
_TRIED = Lock()


@dataclass(frozen=True)
class Availability:
    """The kind of sandbox that Python graders run in; None: they are refused."""

    kind: Kind | None
    reason: str
    """Why this kind, or why none and what the operator can do."""


def availability() -> Availability:
    """Return what this machine allows. The first call of a process takes half a second."""
    with _TRIED:
        return _found()


def log_availability() -> None:
    """Find out in a thread, which does not delay the start of the process, and log it."""
    Thread(target=_log, name="sandbox", daemon=True).start()


def _log() -> None:
    found = availability()
    if found.kind is None:
        logger.warning("Python graders are refused. %s", found.reason)
    else:
        logger.info("%s", found.reason)


@cache
def _found() -> Availability:
    problems: list[str] = []
    for kind in _KINDS:
        problem = problem_with(kind)
        if problem is None:
            return Availability(kind, "; ".join([f"Python graders run in {kind}", *problems]))
        problems.append(f"{kind}: {problem}")
    return Availability(None, " ".join([". ".join(problems) + ".", _advice()]))


def problem_with(kind: Kind) -> str | None:
    """Run a grader in a kind of sandbox. Returns what prevents it."""
    try:
        outcome = run_in(kind, _TRIAL, 1, 2, LIMITS)
    except (SandboxBroken, NoBubblewrap, UnknownMachine, OSError) as error:
        return str(error).rstrip(".")
    except subprocess.SubprocessError as error:
        return f"Python does not start without its packages: {error}"
    return None if outcome.score == 3 else str(outcome.error)


def _advice() -> str:
    advice: list[str] = []
    if _value("/proc/sys/user/max_user_namespaces") == "0":
        advice.append("set the sysctl user.max_user_namespaces above 0")
    if _value("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        advice.append("set the sysctl kernel.unprivileged_userns_clone to 1")
    if _value("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        advice.append(
            "give bwrap an AppArmor profile that allows user namespaces, or set the sysctl "
            "kernel.apparmor_restrict_unprivileged_userns to 0"
        )
    if _has_filter():
        advice.append(
            "let the seccomp filter of this container or service pass the calls that "
            "docs/operations.md lists, for instance with security_opt seccomp=unconfined"
        )
    if (profile := _value("/proc/self/attr/current")) not in (None, "", "unconfined"):
        advice.append(f"replace the AppArmor or SELinux profile {profile!r}, which forbids mounts")
    if os.geteuid() == 0:
        advice.append("run the service as a user other than root")
    if shutil.which("bwrap") is None:
        advice.append("install bubblewrap")
    steps = "; ".join(advice) or "ask for user namespaces"
    return f"To run Python graders: {steps}. See docs/operations.md."


def _has_filter() -> bool:
    """Return whether others have put this process under a filter of system calls."""
    status = _value("/proc/self/status") or ""
    return "\nSeccomp:\t2" in status


def _value(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
