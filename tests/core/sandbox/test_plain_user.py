"""The same sandboxes for a service that does not run as root, where the tests do."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from core.sandbox.availability import problem_with
from core.sandbox.commands import Kind

ROOT = Path(__file__).parents[3]
USER = 54321  # without an account
PROGRAM = "tests.core.sandbox.machines"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="all other tests run as a plain user")


def run_as_user(python: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [python, *arguments],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join([str(ROOT), *sys.path])},
        user=USER,
        group=USER,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )


@cache
def python_for_all() -> str:
    """Return an interpreter of our version that other users may run, too, with our packages."""
    problems = []
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        try:
            done = run_as_user(python, "-c", "import core.sandbox.run, psutil")
        except OSError as error:
            problems.append(f"{python}: {error}")
            continue
        if done.returncode == 0:
            return python
        problems.append(f"{python}: {done.stderr.splitlines()[-1:]}")
    pytest.skip(f"other users than root cannot run our code: {'; '.join(problems)}")


@cache
def outcomes(kind: Kind) -> dict[str, Any]:
    done = run_as_user(python_for_all(), "-m", PROGRAM, "plain", kind)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", ["bubblewrap", "namespaces"])
def test_graders_of_a_plain_user_are_held(kind: Kind) -> None:
    found = outcomes(kind)
    if found["problem"]:
        pytest.skip(f"{kind}: {found['problem']}")
    assert found["honest"] == {"score": 8.0, "error": None}
    assert found["user"] == {"score": 65534.0, "error": None}
    assert found["secret"] == {"score": 0.0, "error": None}
    assert found["calls"]["error"] is None
    assert "time limit" in found["endless"]["error"]
    assert found["left"] == []


@pytest.mark.parametrize("kind", ["bubblewrap", "namespaces"])
def test_container_needs_to_allow_no_more_calls_than_the_page_lists(kind: Kind) -> None:
    """Of those that Docker refuses to a container, as the user of our images and as root."""
    if problem_with(kind) is not None:
        pytest.skip(f"{kind}: {problem_with(kind)}")
    arguments = ["-m", PROGRAM, "container", kind]
    by_root = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    as_user = run_as_user(python_for_all(), *arguments)
    assert (by_root.stdout, as_user.stdout) == ("None\n", "None\n"), as_user.stderr
