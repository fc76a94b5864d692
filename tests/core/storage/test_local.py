"""What only a store in a folder does."""

import os
import time
from pathlib import Path

import pytest

from core.errors import Unavailable
from core.storage.local import LocalBlobStore

KEY = "files/file-abc"


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


def all_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_content_and_name_are_synced_before_write_returns(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    store.write(KEY, [b"x"])
    assert calls[0] == "fsync"
    assert calls[-2:] == ["replace", "fsync"]


def test_fetch_links_the_file_when_it_can(store: LocalBlobStore, tmp_path: Path) -> None:
    store.write(KEY, [b"content"])
    target = tmp_path / "job" / "train.jsonl"
    store.fetch(KEY, target)
    assert target.read_bytes() == b"content"
    assert target.stat().st_nlink == 2
    assert target.stat().st_mode & 0o222 == 0


def test_fetch_copies_when_links_are_impossible(
    store: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    store.write(KEY, [b"content"])
    target = tmp_path / "train.jsonl"
    store.fetch(KEY, target)
    assert target.read_bytes() == b"content"
    assert target.stat().st_nlink == 1


def test_sweep_takes_what_was_left_half_done_long_ago_and_nothing_else(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    store.write(KEY, [b"content"])
    folder = tmp_path / "blobs"
    for name in ("old", "new"):
        (folder / ".incoming" / name).write_bytes(b"half")
        store.fetch(KEY, folder / f".checking-{name}" / "dataset.jsonl")
    yesterday = time.time() - 2 * 86_400
    for path in (folder / ".incoming" / "old", folder / ".checking-old", folder / KEY):
        os.utime(path, (yesterday, yesterday))
    store.sweep(older_than_seconds=86_400)
    assert all_files(folder) == [".checking-new/dataset.jsonl", ".incoming/new", KEY]
    assert not (folder / ".checking-old").exists()


def test_folder_that_is_gone_is_said_to_be(store: LocalBlobStore, tmp_path: Path) -> None:
    store.check()
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match="disk is mounted") as raised:
        store.check()
    assert raised.value.code == "storage_unavailable"
