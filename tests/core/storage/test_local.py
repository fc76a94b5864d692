import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import InvalidRequest, NotFound
from core.storage.blobs import Blob
from core.storage.local import LocalBlobStore, open_store

KEY = "files/file-abc"


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


def all_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_write_returns_length_and_digest_and_reads_back(store: LocalBlobStore) -> None:
    blob = store.write(KEY, iter([b"one ", b"", b"two"]))
    assert blob == Blob(KEY, 7, hashlib.sha256(b"one two").hexdigest())
    assert b"".join(store.read(KEY)) == b"one two"
    assert store.size(KEY) == 7
    assert store.exists(KEY)


def test_read_honours_the_chunk_size(store: LocalBlobStore) -> None:
    store.write(KEY, [b"abcdefg"])
    assert list(store.read(KEY, chunk_bytes=3)) == [b"abc", b"def", b"g"]


def test_write_file_copies_so_that_the_source_may_change(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"before")
    blob = store.write_file("bundles/ftjob-x/3/final.zip", source)
    source.write_bytes(b"after!")
    assert blob.bytes == 6
    assert b"".join(store.read("bundles/ftjob-x/3/final.zip")) == b"before"


def test_chunks_are_taken_one_at_a_time(store: LocalBlobStore) -> None:
    alive = 0
    most = 0

    class Chunk(bytes):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def chunks() -> Iterator[bytes]:
        nonlocal alive, most
        for _ in range(20):
            alive += 1
            most = max(most, alive)
            yield Chunk(1000)

    store.write(KEY, chunks())
    assert most <= 2


def test_a_broken_upload_leaves_nothing_behind(store: LocalBlobStore, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError("the client went away")

    with pytest.raises(ConnectionError):
        store.write(KEY, chunks())
    assert not store.exists(KEY)
    assert all_files(tmp_path) == []


def test_a_broken_overwrite_keeps_the_old_content(store: LocalBlobStore) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    store.write(KEY, [b"whole"])
    with pytest.raises(ConnectionError):
        store.write(KEY, chunks())
    assert b"".join(store.read(KEY)) == b"whole"


def test_the_blob_appears_only_when_it_is_complete(store: LocalBlobStore) -> None:
    seen = []

    def chunks() -> Iterator[bytes]:
        for _ in range(3):
            seen.append(store.exists(KEY))
            yield b"part"

    store.write(KEY, chunks())
    assert seen == [False, False, False]


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


def test_many_writers_of_one_key_leave_one_whole_blob(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    contents = [bytes([letter]) * 10_000 for letter in b"abcdefgh"]
    threads = [
        threading.Thread(target=store.write, args=(KEY, [content[:5000], content[5000:]]))
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b"".join(store.read(KEY)) in contents
    assert all_files(tmp_path) == [f"blobs/{KEY}"]


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


def test_fetch_replaces_the_target_and_may_be_repeated(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    store.write(KEY, [b"content"])
    folder = tmp_path / "job"
    folder.mkdir()
    target = folder / "train.jsonl"
    target.write_bytes(b"old")
    store.fetch(KEY, target)
    store.fetch(KEY, target)
    assert target.read_bytes() == b"content"
    assert all_files(folder) == ["train.jsonl"]


def test_a_fetched_file_survives_the_deletion_of_its_blob(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    store.write(KEY, [b"content"])
    store.fetch(KEY, tmp_path / "kept")
    store.delete(KEY)
    assert (tmp_path / "kept").read_bytes() == b"content"


def test_delete_is_idempotent(store: LocalBlobStore) -> None:
    store.write(KEY, [b"content"])
    store.delete(KEY)
    store.delete(KEY)
    assert not store.exists(KEY)


def test_a_missing_blob_is_not_found(store: LocalBlobStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="files/file-abc"):
        store.read(KEY)  # at once, not at the first chunk
    with pytest.raises(NotFound):
        store.size(KEY)
    with pytest.raises(NotFound):
        store.fetch(KEY, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_folder_of_blobs_is_no_blob(store: LocalBlobStore) -> None:
    store.write("bundles/ftjob-x/final.zip", [b"x"])
    assert not store.exists("bundles/ftjob-x")


def test_another_process_sees_the_same_store(tmp_path: Path) -> None:
    open_store(tmp_path / "blobs").write(KEY, [b"content"])
    assert b"".join(open_store(tmp_path / "blobs").read(KEY)) == b"content"


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


TRAVERSALS = [
    "",
    "files",
    "files/",
    "/files/a",
    "//files/a",
    "files//a",
    "files/a/",
    "../secret",
    "files/..",
    "files/../../secret",
    "files/./a",
    "files/.hidden",
    ".incoming/a",
    "files/..%2f..%2fsecret",
    "files\\..\\secret",
    "C:/windows/a",
    "~/a",
    "files/a\0b",
    "files/a\nb",
    "files/a b",
    "files/\u2025/a",
    "files/\uff0e\uff0e/a",
    "files/-\u0301",
    "files/-rf",
    "Files/a",
    "files/" + "a" * 300,
    "files" + "/a" * 50,
]


@pytest.mark.parametrize("key", TRAVERSALS)
def test_no_key_leaves_the_store(key: str, store: LocalBlobStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    operations = [
        lambda: store.write(key, [b"x"]),
        lambda: store.write_file(key, secret),
        lambda: store.read(key),
        lambda: store.size(key),
        lambda: store.fetch(key, tmp_path / "fetched"),
        lambda: store.delete(key),
        lambda: store.exists(key),
    ]
    for operation in operations:
        with pytest.raises(InvalidRequest, match="is not a storage key"):
            operation()
    assert all_files(tmp_path) == ["secret"]
