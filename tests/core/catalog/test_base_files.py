"""Whether a base's files are on this machine, without a network and without torch."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from core.catalog.base_files import base_folder, license_of, look_for
from core.catalog.bases import Catalog
from core.catalog.settings import HubSettings
from core.spec.base_files import BaseFiles
from core.spec.base_model import BaseModelSpec

HUB_BASE = BaseModelSpec(id="acme/small", source="acme/small")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
INDEX = json.dumps(
    {"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}}
)


def fill(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def snapshot(hub: Path, ref: str | None, files: Mapping[str, str]) -> Path:
    """Fill the cache as huggingface_hub lays it out."""
    repository = hub / "models--acme--small"
    if ref is not None:
        fill(repository / "refs", {ref: COMMIT})
    return fill(repository / "snapshots" / COMMIT, files)


def state_of(base: BaseModelSpec, hub: Path, *, may_download: bool = True) -> str:
    return look_for(base, hub, may_download=may_download).state


def test_shipped_base_is_present_with_size_and_license(tmp_path: Path) -> None:
    tiny = Catalog.load().resolve("tiny")
    found = look_for(tiny, tmp_path, may_download=False)
    assert found == BaseFiles(state="present", bytes=8_397_312, license="apache-2.0")


@pytest.mark.parametrize(
    ("files", "size"),
    [
        ({"config.json": "{}", "model.safetensors": "12345"}, 5),
        # complete shards; a file of the index counts once
        (
            {
                "config.json": "{}",
                "model.safetensors.index.json": INDEX,
                "1.safetensors": "123",
                "2.safetensors": "12",
            },
            5,
        ),
        # transformers reads the one file, and not the index of an earlier layout beside it
        (
            {"config.json": "{}", "model.safetensors": "1", "model.safetensors.index.json": INDEX},
            1,
        ),
    ],
)
def test_complete_folder_is_present(tmp_path: Path, files: dict[str, str], size: int) -> None:
    folder = fill(tmp_path / "base", files)
    base = BaseModelSpec(id="mine", source=str(folder))
    assert look_for(base, tmp_path, may_download=True) == BaseFiles(state="present", bytes=size)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"model.safetensors": "1"},
        {"config.json": "{}"},
        {"config.json": "{}", "pytorch_model.bin": "1"},
        {"config.json": "{}", "model.safetensors.index.json": INDEX, "1.safetensors": "1"},
        {"config.json": "{}", "1.safetensors": "1", "2.safetensors": "1"},
        {"config.json": "{}", "model.safetensors.index.json": "not JSON"},
        {"config.json": "{}", "model.safetensors.index.json": "[]"},
        {"config.json": "{}", "model.safetensors.index.json": '{"weight_map": []}'},
    ],
    ids=["none", "config", "weights", "pickled", "shard", "index", "json", "list", "map"],
)
def test_incomplete_files_are_not_present(tmp_path: Path, files: dict[str, str]) -> None:
    folder = fill(tmp_path / "base", files)
    base = BaseModelSpec(id="mine", source=str(folder))
    assert state_of(base, tmp_path) == "missing"
    snapshot(tmp_path / "hub", "main", files)
    assert state_of(HUB_BASE, tmp_path / "hub") == "downloadable"


def test_hub_id_is_downloadable_only_if_downloads_are_allowed(tmp_path: Path) -> None:
    assert state_of(HUB_BASE, tmp_path) == "downloadable"
    assert state_of(HUB_BASE, tmp_path, may_download=False) == "missing"
    folder = BaseModelSpec(id="mine", source=str(tmp_path / "gone"))
    assert state_of(folder, tmp_path) == "missing"


def test_revision_selects_the_snapshot(tmp_path: Path) -> None:
    files = {"config.json": "{}", "model.safetensors": "1"}
    folder = snapshot(tmp_path, "v2", files)
    assert base_folder(HUB_BASE, tmp_path) is None
    for revision in ("v2", COMMIT):
        pinned = HUB_BASE.model_copy(update={"revision": revision})
        assert base_folder(pinned, tmp_path) == folder


@pytest.mark.parametrize(
    ("card", "license_"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n", "apache-2.0"),
        ('---\r\ntags: [a]\r\nlicense: "llama3.2"\r\n---\r\n', "llama3.2"),
        (
            "---\nlicense: other\nlicense_name: Acme Community License\n---\n",
            "Acme Community License",
        ),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
        ("# A card without front matter\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_license_is_that_of_the_front_matter(
    tmp_path: Path, card: str, license_: str | None
) -> None:
    fill(tmp_path, {"README.md": card})
    assert license_of(tmp_path) == license_


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, "~/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/caches"}, "/caches/huggingface/hub"),
        ({"HF_HOME": "/hf", "XDG_CACHE_HOME": "/caches"}, "/hf/hub"),
        ({"HF_HUB_CACHE": "/models", "HF_HOME": "/hf"}, "/models"),
        ({"HUGGINGFACE_HUB_CACHE": "~/old"}, "~/old"),
    ],
)
def test_cache_is_that_of_huggingface_hub(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], folder: str
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert HubSettings().hub_folder == Path(folder).expanduser()


def test_this_process_and_huggingface_hub_agree() -> None:
    from huggingface_hub import constants

    assert HubSettings().hub_folder == Path(constants.HF_HUB_CACHE)
