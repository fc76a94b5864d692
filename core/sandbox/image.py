"""The files that a grader can read: the interpreter, its standard library, and a few packages.

Nothing else of the host exists inside, not even other libraries.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("rapidfuzz",)
"""What graders may import beside the standard library, where it is installed."""

PACKAGES_FOLDER = "/packages"

NOBODY = 65534
"""The user and the group inside."""

_SURVEY = Path(__file__).with_name("inside") / "survey.py"
_SURVEY_SECONDS = 60.0
_LOADER_CACHE = "/etc/ld.so.cache"
_DEVICE = "/dev/null"


@dataclass(frozen=True)
class Image:
    """Which paths of the host are seen where, all read-only."""

    interpreter: str
    binds: tuple[tuple[str, str], ...]
    """A path without symbolic links, and the path inside."""
    hidden: tuple[str, ...]
    """Folders inside `binds` that are empty: packages that are not for graders."""


@cache
def image() -> Image:
    """Find the files of this machine. Takes a third of a second, once.

    Raises OSError and `subprocess.SubprocessError` if Python does not run without its packages.
    """
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    packages = dict(_packages())
    found = _survey(interpreter, packages)
    folders = [folder for folder in found["folders"] if os.path.exists(folder)]
    roots = [folder for folder in folders if not _is_below_any(folder, folders)]
    libraries = [
        os.path.normpath(library)
        for library in found["libraries"]
        if os.path.isabs(library) and os.path.exists(library)
    ]
    outside = [
        library
        for library in libraries
        if not _is_below_any(library, roots) and not _is_below_any(library, packages.values())
    ]
    shown = dict.fromkeys((interpreter, *roots, *outside, _LOADER_CACHE, _DEVICE))
    binds = [(os.path.realpath(path), path) for path in shown if os.path.exists(path)]
    binds += [(path, f"{PACKAGES_FOLDER}/{name}") for name, path in packages.items()]
    return Image(interpreter, tuple(binds), tuple(_hidden(roots)))


def _survey(interpreter: str, packages: dict[str, str]) -> dict[str, list[str]]:
    parents = sorted({os.path.dirname(path) for path in packages.values()})
    command = [interpreter, "-I", "-S", str(_SURVEY), *parents[:1], *packages]
    done = subprocess.run(
        command, env={}, capture_output=True, timeout=_SURVEY_SECONDS, check=True, text=True
    )
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _packages() -> Iterator[tuple[str, str]]:
    """Yield the name and the folder of each package, and of the libraries beside it."""
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = Path(os.path.realpath(spec.submodule_search_locations[0]))
        yield name, str(folder)
        libraries = folder.with_name(f"{name}.libs")
        if libraries.is_dir():
            yield libraries.name, str(libraries)


def _hidden(roots: list[str]) -> Iterator[str]:
    for root in roots:
        for name in ("site-packages", "dist-packages"):
            if os.path.isdir(os.path.join(root, name)):
                yield os.path.join(root, name)


def _is_below_any(path: str, folders: Iterable[str]) -> bool:
    return any(path.startswith(f"{folder}/") for folder in folders)
