"""What only S3 can do: be away, refuse, break off, and hold what is not ours."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import NotFound, TooLarge, Unavailable
from core.storage import s3
from core.storage.open import open_store
from tests.core.storage.conftest import S3Bucket
from tests.s3 import SECRET, S3Server

KEY = "files/file-abc"
PART_BYTES = 1000

Fault = Callable[[str, str], int | str | None]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", PART_BYTES)


def always(answer: int | str) -> Fault:
    return lambda method, path: answer


def once(answer: int | str, method: str) -> Fault:
    answers = iter([answer])
    return lambda asked, path: next(answers, None) if asked == method else None


def every_operation(place: S3Bucket, folder: Path) -> dict[str, Callable[[], Any]]:
    store = place.store
    return {
        "write": lambda: store.write(KEY, [b"x"]),
        "write in parts": lambda: store.write(KEY, [b"x" * 2 * PART_BYTES]),
        "read": lambda: store.read(KEY),
        "size": lambda: store.size(KEY),
        "fetch": lambda: store.fetch(KEY, folder / "fetched"),
        "delete": lambda: store.delete(KEY),
        "exists": lambda: store.exists(KEY),
        "sweep": lambda: store.sweep(0),
        "check": store.check,
    }


OPERATIONS = [
    "write",
    "write in parts",
    "read",
    "size",
    "fetch",
    "delete",
    "exists",
    "sweep",
    "check",
]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", ["nobody listens", "no such bucket", 403, 503])
def test_storage_that_is_away_says_so_and_when_to_come_back(
    operation: str,
    fault: int | str,
    s3_place: S3Bucket,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # boto3 waits before it tries again
    match fault:
        case int():
            s3_server.fault = always(fault)
            word = {403: "403|AccessDenied", 503: "503|SlowDown"}[fault]
        case "no such bucket":
            s3_place.s3.delete_bucket(Bucket=s3_place.bucket)
            word = "404|NoSuchBucket"
        case _:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
            store = open_store(None, f"s3://{s3_place.bucket}")
            s3_place = S3Bucket(store, "", s3_place.s3, s3_place.bucket, "")
            word = "EndpointConnectionError"
    with pytest.raises(Unavailable, match=word) as raised:
        every_operation(s3_place, tmp_path / "target")[operation]()
    assert raised.value.code == "storage_unavailable"
    assert raised.value.retry_after_seconds > 0
    assert SECRET not in caplog.text and SECRET not in raised.value.message
    assert "127.0.0.1" not in raised.value.message, "callers need not know where storage is"
    assert not (tmp_path / "target").exists() or list((tmp_path / "target").iterdir()) == []


def test_a_server_that_hangs_is_given_up(
    s3_place: S3Bucket, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = s3._CONFIG.merge(s3.Config(read_timeout=0.2, retries={"total_max_attempts": 2}))
    monkeypatch.setattr(s3, "_CONFIG", brief)
    store = open_store(None, f"s3://{s3_place.bucket}")
    s3_server.fault = lambda method, path: time.sleep(1)
    with pytest.raises(Unavailable, match="ReadTimeoutError"):
        store.size(KEY)
    assert s3._CONFIG.connect_timeout < 10


@pytest.mark.parametrize("method", ["PUT", "GET", "POST"])
def test_a_fault_that_passes_is_not_noticed(
    method: str, s3_place: S3Bucket, s3_server: S3Server, tmp_path: Path
) -> None:
    s3_server.fault = once(503, method)
    content = b"x" * 2 * PART_BYTES + b"y"
    s3_place.store.write(KEY, [content])
    s3_place.store.fetch(KEY, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == content


@pytest.mark.parametrize("failing_part", [1, 2, 3])
def test_failed_part_takes_the_others_with_it_at_once(
    failing_part: int, s3_place: S3Bucket, s3_server: S3Server
) -> None:
    taken = parts = 0

    def fault(method: str, path: str) -> int | None:
        nonlocal parts
        parts += method == "PUT"
        return 403 if method == "PUT" and parts == failing_part else None

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(10):
            taken += 1
            yield b"x" * PART_BYTES

    s3_server.fault = fault
    with pytest.raises(Unavailable, match="AccessDenied"):
        s3_place.store.write(KEY, chunks())
    assert taken == failing_part, "the rest of the stream was read for nothing"
    assert (s3_place.blobs(), s3_place.unfinished()) == ([], [])


def test_upload_that_cannot_be_taken_back_is_swept_later(
    s3_place: S3Bucket, s3_server: S3Server
) -> None:
    s3_server.fault = lambda method, path: 403 if method in ("PUT", "DELETE") else None
    with pytest.raises(Unavailable, match="AccessDenied"):
        s3_place.store.write(KEY, [b"x" * PART_BYTES])
    s3_server.fault = lambda method, path: None
    assert (s3_place.blobs(), s3_place.unfinished()) == ([], [KEY])
    s3_place.store.sweep(older_than_seconds=0)
    assert s3_place.unfinished() == []


def test_sweep_leaves_what_is_not_ours(s3_place: S3Bucket) -> None:
    for key in ("team/ab/files/theirs", "other", "team/a"):
        s3_place.s3.create_multipart_upload(Bucket=s3_place.bucket, Key=key)
    s3_place.s3.create_multipart_upload(Bucket=s3_place.bucket, Key="team/a/files/ours")
    s3_place.store.sweep(older_than_seconds=0)
    assert sorted(s3_place.unfinished()) == ["other", "team/a", "team/ab/files/theirs"]


def test_sweep_passes_over_what_its_owner_finishes(s3_place: S3Bucket, s3_server: S3Server) -> None:
    for key in ("files/one", "files/two"):
        s3_place.s3.create_multipart_upload(Bucket=s3_place.bucket, Key=f"team/a/{key}")

    def finish_the_first(method: str, path: str) -> None:
        if method == "DELETE" and path.endswith("/one"):
            [one] = [
                each
                for each in s3_place.s3.list_multipart_uploads(Bucket=s3_place.bucket)["Uploads"]
                if each["Key"].endswith("/one")
            ]
            s3_server.fault = lambda method, path: None
            s3_place.s3.abort_multipart_upload(
                Bucket=s3_place.bucket, Key=one["Key"], UploadId=one["UploadId"]
            )

    s3_server.fault = finish_the_first
    s3_place.store.sweep(older_than_seconds=0)
    assert s3_place.unfinished() == []


def test_download_that_breaks_off_is_an_error_and_leaves_no_file(
    s3_place: S3Bucket, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    s3_place.store.write(KEY, [b"x" * 500])
    s3_server.fault = lambda method, path: "cut" if method == "GET" else None
    with pytest.raises(Unavailable):
        b"".join(s3_place.store.read(KEY))
    target = tmp_path / "job" / "train.jsonl"
    with pytest.raises(Unavailable):
        s3_place.store.fetch(KEY, target)
    assert list(target.parent.iterdir()) == []
    s3_server.fault = once("cut", "GET")
    s3_place.store.fetch(KEY, target)
    assert target.read_bytes() == b"x" * 500


def test_full_disk_looks_like_one(s3_place: S3Bucket) -> None:
    """The worker parks a job by these words."""
    s3_place.store.write(KEY, [b"x" * 100_000])
    with pytest.raises(OSError, match="No space left"):
        s3_place.store.fetch(KEY, Path("/dev/full"))


def test_blob_of_more_parts_than_s3_takes(
    s3_place: S3Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stream is refused when it turns out to be too long; of a file the length is known."""
    monkeypatch.setattr(s3, "MAX_PARTS", 3)
    content = b"x" * (3 * PART_BYTES + 1)
    with pytest.raises(TooLarge, match="3000 bytes"):
        s3_place.store.write(KEY, [content])
    assert (s3_place.blobs(), s3_place.unfinished()) == ([], [])
    (tmp_path / "file").write_bytes(content)
    assert s3_place.store.write_file(KEY, tmp_path / "file").bytes == len(content)
    assert b"".join(s3_place.store.read(KEY)) == content


def test_reader_that_leaves_early_leaves_no_connection(s3_place: S3Bucket) -> None:
    s3_place.store.write(KEY, [b"x" * 4 * PART_BYTES])
    for _ in range(5):
        chunks = s3_place.store.read(KEY, chunk_bytes=10)
        assert next(iter(chunks)) == b"x" * 10
        chunks.close()  # type: ignore[attr-defined]
    assert s3_place.store.size(KEY) == 4 * PART_BYTES


def test_blob_deleted_between_two_calls_is_missing(s3_place: S3Bucket, tmp_path: Path) -> None:
    s3_place.store.write(KEY, [b"x"])
    s3_place.s3.delete_object(Bucket=s3_place.bucket, Key=f"team/a/{KEY}")
    with pytest.raises(NotFound):
        s3_place.store.fetch(KEY, tmp_path / "file")


def test_bucket_may_be_used_without_a_prefix(s3_place: S3Bucket) -> None:
    open_store(None, f"s3://{s3_place.bucket}/").write(KEY, [b"x"])
    assert s3_place.blobs() == [KEY]
