"""What holds for every store, whatever is behind it."""

import hashlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import InvalidRequest, NotFound
from core.storage.blobs import Blob, BlobStore
from tests.core.storage.conftest import Place

ROOT = Path(__file__).parents[3]
KEY = "files/file-abc"
PART_BYTES = 1000
"""Of an upload to S3 in tests that are about parts: many of them in few bytes."""

MIB = 1 << 20


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.storage.s3.PART_BYTES", PART_BYTES)


def content_of(store: BlobStore, key: str = KEY) -> bytes:
    return b"".join(store.read(key))


def test_write_returns_length_and_digest_and_reads_back(store: BlobStore) -> None:
    blob = store.write(KEY, iter([b"one ", b"", b"two"]))
    assert blob == Blob(KEY, 7, hashlib.sha256(b"one two").hexdigest())
    assert content_of(store) == b"one two"
    assert store.size(KEY) == 7
    assert store.exists(KEY)
    store.check()


def test_blob_may_be_empty(store: BlobStore, tmp_path: Path) -> None:
    assert store.write(KEY, []) == Blob(KEY, 0, hashlib.sha256().hexdigest())
    assert (store.size(KEY), list(store.read(KEY))) == (0, [])
    store.fetch(KEY, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b""


# Lengths about one, two and three parts, cut into chunks anyhow.
lengths = st.sampled_from(
    [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 3 * PART_BYTES - 1]
)
chunk_lengths = st.lists(st.integers(0, 3 * PART_BYTES), min_size=1, max_size=6)
many = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def cut(content: bytes, at: list[int]) -> Iterator[bytes]:
    """The content in chunks of these lengths, the last of them repeated."""
    start = 0
    for length in at:
        yield content[start : start + length]
        start += length
    while start < len(content):
        yield content[start : start + max(at[-1], 100)]
        start += max(at[-1], 100)


@given(length=lengths, at=chunk_lengths)
@many
def test_content_does_not_depend_on_how_it_is_cut(
    place: Place, small_parts: None, tmp_path: Path, length: int, at: list[int]
) -> None:
    content = bytes(index % 251 for index in range(length))
    blob = place.store.write(KEY, cut(content, at))
    assert blob == Blob(KEY, length, hashlib.sha256(content).hexdigest())
    assert content_of(place.store) == content
    place.store.fetch(KEY, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == content
    assert (place.blobs(), place.unfinished()) == ([KEY], [])


@given(before=st.integers(0, 4 * PART_BYTES), old=st.none() | st.just(b"whole"))
@many
def test_write_that_fails_anywhere_changes_nothing(
    place: Place, small_parts: None, before: int, old: bytes | None
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * before
        raise ConnectionError("the client went away")

    place.store.delete(KEY)
    if old is not None:
        place.store.write(KEY, [old])
    with pytest.raises(ConnectionError):
        place.store.write(KEY, chunks())
    assert (place.blobs(), place.unfinished()) == ([KEY] if old else [], [])
    assert old is None or content_of(place.store) == old


def test_interrupted_write_leaves_nothing(place: Place, small_parts: None) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * 2 * PART_BYTES
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.store.write(KEY, chunks())
    assert (place.blobs(), place.unfinished()) == ([], [])


def test_blob_appears_only_when_it_is_complete(store: BlobStore, small_parts: None) -> None:
    seen = []

    def chunks() -> Iterator[bytes]:
        for _ in range(3):
            seen.append(store.exists(KEY))
            yield b"x" * PART_BYTES

    store.write(KEY, chunks())
    assert seen == [False, False, False]


def test_chunks_are_taken_one_at_a_time(store: BlobStore) -> None:
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


def test_read_honours_the_chunk_size(store: BlobStore) -> None:
    store.write(KEY, [b"abcdefg"])
    assert list(store.read(KEY, chunk_bytes=3)) == [b"abc", b"def", b"g"]


def test_write_file_copies_so_that_the_source_may_change(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"before")
    blob = store.write_file("bundles/ftjob-x/3/final.zip", source)
    source.write_bytes(b"after!")
    assert blob.bytes == 6
    assert content_of(store, "bundles/ftjob-x/3/final.zip") == b"before"


def test_many_writers_of_one_key_leave_one_whole_blob(place: Place, small_parts: None) -> None:
    contents = [bytes([letter]) * 10_000 for letter in b"abcdefgh"]
    threads = [
        threading.Thread(target=place.store.write, args=(KEY, [content[:5000], content[5000:]]))
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content_of(place.store) in contents
    assert (place.blobs(), place.unfinished()) == ([KEY], [])


def test_fetch_replaces_the_target_and_may_be_repeated(store: BlobStore, tmp_path: Path) -> None:
    store.write(KEY, [b"content"])
    target = tmp_path / "job" / "train.jsonl"
    target.parent.mkdir()
    target.write_bytes(b"old")
    store.fetch(KEY, target)
    store.fetch(KEY, target)
    assert target.read_bytes() == b"content"
    assert list(target.parent.iterdir()) == [target]


def test_a_fetched_file_survives_the_deletion_of_its_blob(store: BlobStore, tmp_path: Path) -> None:
    store.write(KEY, [b"content"])
    store.fetch(KEY, tmp_path / "new folder" / "kept")
    store.delete(KEY)
    assert (tmp_path / "new folder" / "kept").read_bytes() == b"content"


def test_delete_is_idempotent(store: BlobStore) -> None:
    store.write(KEY, [b"content"])
    store.delete(KEY)
    store.delete(KEY)
    assert not store.exists(KEY)


def test_a_missing_blob_is_not_found(store: BlobStore, tmp_path: Path) -> None:
    store.write(f"{KEY}-longer", [b"a key that begins like the missing one"])
    assert not store.exists(KEY)
    with pytest.raises(NotFound, match="files/file-abc"):
        store.read(KEY)  # at once, not at the first chunk
    with pytest.raises(NotFound, match="files/file-abc"):
        store.size(KEY)
    with pytest.raises(NotFound, match="files/file-abc"):
        store.fetch(KEY, tmp_path / "empty" / "target")
    assert not (tmp_path / "empty").exists() or list((tmp_path / "empty").iterdir()) == []


def test_a_folder_of_blobs_is_no_blob(store: BlobStore) -> None:
    store.write("bundles/ftjob-x/final.zip", [b"x"])
    assert not store.exists("bundles/ftjob-x")


HEADER = "import sys\nfrom pathlib import Path\nfrom core.storage.open import open_store\n"


def test_another_process_sees_the_same_store(place: Place) -> None:
    place.store.write(KEY, [b"content"])
    read = f"sys.stdout.buffer.write(b''.join({place.opened}.read({KEY!r})))"
    done = subprocess.run(
        [sys.executable, "-c", HEADER + read], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    assert done.stdout == b"content"


def test_what_a_killed_writer_left_is_invisible_and_swept(place: Place) -> None:
    write = (
        "import core.storage.s3, time\n"
        f"core.storage.s3.PART_BYTES = {PART_BYTES}\n"
        "def chunks():\n"
        f"    yield b'x' * {PART_BYTES}\n"
        "    yield b'y'\n"
        "    print(flush=True)\n"
        "    time.sleep(600)\n"
        f"{place.opened}.write({KEY!r}, chunks())"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", HEADER + write], cwd=ROOT, stdout=subprocess.PIPE
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"\n"
        writer.kill()
    place.store.write("files/another", [b"content"])
    assert not place.store.exists(KEY)
    assert place.blobs() == ["files/another"]
    assert len(place.unfinished()) == 1

    place.store.sweep(older_than_seconds=60)
    assert len(place.unfinished()) == 1, "its owner may still be at work"
    time.sleep(1.1)  # a server may count whole seconds
    place.store.sweep(older_than_seconds=0)
    assert (place.blobs(), place.unfinished()) == (["files/another"], [])


def test_large_blob_needs_little_memory(place: Place, tmp_path: Path) -> None:
    """Ten parts of the real size, written, read and fetched by a process of its own."""
    program = f"""
store = {place.opened}
store.write("files/small", [b"x"])
list(store.read("files/small"))
def peak():  # not that of getrusage, which a child inherits
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10
before = peak()
blob = store.write({KEY!r}, (bytes([n % 251]) * {MIB} for n in range(160)))
assert blob.bytes == sum(map(len, store.read({KEY!r}))) == 160 * {MIB}
written = peak() - before
store.fetch({KEY!r}, Path({str(tmp_path / "fetched")!r}))
print(written, peak() - before, blob.sha256)
"""
    done = subprocess.run(
        [sys.executable, "-c", HEADER + program],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    written_mib, fetched_mib, sha256 = done.stdout.split()
    assert int(written_mib) <= 64
    assert int(fetched_mib) <= 128
    with (tmp_path / "fetched").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == sha256
    assert place.unfinished() == []


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


def test_no_key_leaves_the_store(place: Place, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    store = place.store
    operations: list[Callable[[str], object]] = [
        lambda key: store.write(key, [b"x"]),
        lambda key: store.write_file(key, secret),
        store.read,
        store.size,
        lambda key: store.fetch(key, tmp_path / "fetched"),
        store.delete,
        store.exists,
    ]
    for key, operation in itertools.product(TRAVERSALS, operations):
        with pytest.raises(InvalidRequest, match="is not a valid storage key"):
            operation(key)
    assert place.blobs() == []
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["secret"]
