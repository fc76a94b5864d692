"""The API as a process: what it loads, and when it refuses to start."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from api.process import run_api
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


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The settings that have no default."""
    monkeypatch.setenv("TUNESMITH_DATABASE_URL", f"sqlite:///{tmp_path}/tunesmith.db")
    monkeypatch.setenv("TUNESMITH_BROKER_URL", f"folder://{tmp_path}/broker")
    monkeypatch.setenv("TUNESMITH_STORAGE_FOLDER", str(tmp_path / "storage"))
    return monkeypatch


@pytest.mark.parametrize("storage", ["folder", "s3"])
def test_fresh_process_is_light(environment: pytest.MonkeyPatch, storage: str) -> None:
    if storage == "s3":
        environment.delenv("TUNESMITH_STORAGE_FOLDER")
        environment.setenv("TUNESMITH_STORAGE_URL", "s3://blobs/team")
    command = [sys.executable, "-c", BUILD]
    root = Path(__file__).parents[2]
    built = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    memory_mb, heavy = built.stdout.splitlines()
    assert heavy == "[]"
    assert int(memory_mb) <= MAX_MEMORY_MB


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org"])
def test_open_service_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValidationError, match="TUNESMITH_API_KEY"):
        settings_for(tmp_path, "sqlite://", host=host)
    settings = settings_for(tmp_path, "sqlite://", host=host, api_key="k")
    assert settings.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_needs_no_key(tmp_path: Path, host: str) -> None:
    assert settings_for(tmp_path, "sqlite://", host=host).api_key is None


def test_process_wants_exactly_one_storage(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TUNESMITH_STORAGE_URL", "s3://blobs")
    with pytest.raises(SystemExit, match=r"STORAGE_FOLDER.* TUNESMITH_STORAGE_URL"):
        run_api()


@pytest.mark.parametrize(
    ("name", "value"), [("HOST", "0.0.0.0"), ("PORT", "many"), ("CATALOG_FILE", "missing.toml")]
)
def test_process_says_why_it_does_not_start(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv("TUNESMITH_API_KEY", "" if name == "HOST" else "canary")
    environment.setenv(f"TUNESMITH_{name}", value)
    with pytest.raises(SystemExit) as refused:
        run_api()
    assert {"HOST": "TUNESMITH_API_KEY", "PORT": "TUNESMITH_PORT"}.get(name, value) in str(
        refused.value
    )
    assert "canary" not in str(refused.value)
