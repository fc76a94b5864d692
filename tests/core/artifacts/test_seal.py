from pathlib import Path

import pytest

from core.artifacts.seal import SEAL_FILE, is_intact, seal


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.safetensors").write_bytes(b"12345678")
    seal(tmp_path)
    return tmp_path


def test_sealed_folder_is_intact(sealed: Path) -> None:
    assert is_intact(sealed)


def test_folder_without_a_readable_seal_is_not_whole(sealed: Path) -> None:
    (sealed / SEAL_FILE).write_text("{")
    assert not is_intact(sealed)
    (sealed / SEAL_FILE).unlink()
    assert not is_intact(sealed)


def test_every_change_is_found(sealed: Path) -> None:
    (sealed / "a.json").write_text("[]")
    assert not is_intact(sealed)
    (sealed / "a.json").write_text("{}")
    assert is_intact(sealed)
    (sealed / "c.json").write_text("{}")
    assert not is_intact(sealed)
    (sealed / "c.json").unlink()
    (sealed / "b.safetensors").unlink()
    assert not is_intact(sealed)
