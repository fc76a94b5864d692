"""The API as a process: what it loads, and when it refuses to start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.api.live import settings_for

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "safetensors", "numpy")
MAX_MEMORY_MB = 150

BUILD = f"""
import sys
from pathlib import Path
from api.app import create_app
from api.settings import ApiSettings
create_app(ApiSettings()).openapi()
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
print([name for name in {HEAVY!r} if name in sys.modules])
"""


def environment(folder: Path, **changes: str) -> dict[str, str]:
    ours = {
        "TUNESMITH_DATABASE_URL": f"sqlite:///{folder}/tunesmith.db",
        "TUNESMITH_BROKER_URL": f"folder://{folder}/broker",
        "TUNESMITH_STORAGE_FOLDER": str(folder / "storage"),
    }
    others = {key: value for key, value in os.environ.items() if not key.startswith("TUNESMITH_")}
    return others | ours | changes


def python(
    *arguments: str, folder: Path, **changes: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=Path(__file__).parents[2],
        env=environment(folder, **changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_fresh_process_is_light(tmp_path: Path) -> None:
    built = python("-c", BUILD, folder=tmp_path)
    assert built.returncode == 0, built.stderr
    memory_mb, heavy = built.stdout.splitlines()
    assert heavy == "[]"
    assert int(memory_mb) <= MAX_MEMORY_MB


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org"])
def test_open_service_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValidationError, match="TUNESMITH_API_KEY"):
        settings_for(tmp_path, "sqlite://", "http://127.0.0.1:9", host=host)
    settings = settings_for(tmp_path, "sqlite://", "http://127.0.0.1:9", host=host, api_key="k")
    assert settings.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_needs_no_key(tmp_path: Path, host: str) -> None:
    assert settings_for(tmp_path, "sqlite://", "http://127.0.0.1:9", host=host).api_key is None


def test_process_says_why_it_does_not_start(tmp_path: Path) -> None:
    open_service = python(
        "-m", "api", folder=tmp_path, TUNESMITH_HOST="0.0.0.0", TUNESMITH_API_KEY=""
    )
    assert open_service.returncode == 1
    assert "TUNESMITH_API_KEY" in open_service.stderr
    catalog = tmp_path / "catalog.toml"
    catalog.write_text("[[bases]]\nid = 3\n")
    wrong = python(
        "-m", "api", folder=tmp_path, TUNESMITH_PORT="many", TUNESMITH_API_KEY="canary"
    )
    assert "TUNESMITH_PORT" in wrong.stderr
    assert "canary" not in wrong.stderr
    bad_catalog = python("-m", "api", folder=tmp_path, TUNESMITH_CATALOG_FILE=str(catalog))
    assert bad_catalog.returncode == 1
    assert str(catalog) in bad_catalog.stderr
