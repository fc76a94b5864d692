"""Blobs in a bucket of S3, or of any server that speaks its protocol, through boto3.

Credentials, region and endpoint are those that boto3 finds by itself: in the AWS_… variables, its
files, or the role of the machine. None of them is read, kept or named here.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3.session
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from core.errors import NotFound, TooLarge, Unavailable
from core.storage.blobs import (
    CHUNK_BYTES,
    STORAGE_UNAVAILABLE,
    Blob,
    checked_key,
    chunks_of,
    missing,
)

logger = logging.getLogger(__name__)

PART_BYTES = 16 << 20
"""What is sent at once. A blob that is shorter needs one request; two parts are in memory."""

MAX_PARTS = 10_000
"""S3's own limit."""

RETRY_AFTER_SECONDS = 10

_CONFIG = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=50,  # as many as an API process has threads
    # What is sent is signed, or encrypted on its way, and a bundle is checked by its SHA-256; the
    # checksums that boto3 would add are refused by some servers other than Amazon's.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)

_FAULTS = (ClientError, BotoCoreError, Boto3Error)


class S3BlobStore:
    """A `BlobStore` under one prefix of one bucket; safe for many threads and processes at once.

    When a write raises Unavailable the blob may be there all the same: the answer was lost.
    """

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._s3: Any = boto3.session.Session().client("s3", config=_CONFIG)

    def write(self, key: str, chunks: Iterable[bytes]) -> Blob:
        return self._write(key, chunks, PART_BYTES)

    def write_file(self, key: str, path: Path) -> Blob:
        enough_bytes = -(-path.stat().st_size // MAX_PARTS)
        return self._write(key, chunks_of(path, CHUNK_BYTES), max(PART_BYTES, enough_bytes))

    def read(self, key: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        place = self._place(key)
        with self._asking_for(key):
            body = self._s3.get_object(**place)["Body"]
        return self._chunks(key, body, chunk_bytes)

    def size(self, key: str) -> int:
        place = self._place(key)
        with self._asking_for(key):
            return int(self._s3.head_object(**place)["ContentLength"])

    def fetch(self, key: str, target: Path) -> None:
        place = self._place(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._asking_for(key):
            # Parts side by side, into a file of another name that is renamed at the end.
            self._s3.download_file(**place, Filename=str(target))

    def delete(self, key: str) -> None:
        place = self._place(key)
        with self._asking_for(key):
            self._s3.delete_object(**place)

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def sweep(self, older_than_seconds: float) -> None:
        oldest_kept = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        with self._asking_for("unfinished uploads"):
            for upload, began_at in self._unfinished():
                if began_at >= oldest_kept:
                    continue
                with suppress(self._s3.exceptions.NoSuchUpload):  # its owner was faster
                    if self._last_touched(upload, began_at) < oldest_kept:
                        self._s3.abort_multipart_upload(**upload)

    def check(self) -> None:
        try:
            self._s3.head_bucket(Bucket=self._bucket)
        except _FAULTS as error:
            raise _away(f"the bucket {self._bucket!r}", error) from error

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + checked_key(key)}

    def _write(self, key: str, chunks: Iterable[bytes], part_bytes: int) -> Blob:
        place = self._place(key)
        digest = hashlib.sha256()
        length = 0

        def parts() -> Iterator[bytearray]:
            nonlocal length
            for part in _in_parts(chunks, part_bytes):
                digest.update(part)
                length += len(part)
                yield part

        with self._asking_for(key):
            self._send(place, parts(), part_bytes)
        return Blob(key, length, digest.hexdigest())

    def _send(self, place: dict[str, str], parts: Iterator[bytearray], part_bytes: int) -> None:
        """Make the object: in one request, or as an upload of parts that appears when complete."""
        part = next(parts)
        if len(part) < part_bytes:
            self._s3.put_object(**place, Body=part)
            return
        upload = place | {"UploadId": self._s3.create_multipart_upload(**place)["UploadId"]}
        sent: list[dict[str, Any]] = []
        try:
            while part:  # the last one is empty when the others hold everything
                if len(sent) == MAX_PARTS:
                    raise TooLarge(f"Storage takes {MAX_PARTS * part_bytes} bytes at most.")
                number = len(sent) + 1
                answer = self._s3.upload_part(**upload, PartNumber=number, Body=part)
                sent.append({"PartNumber": number, "ETag": answer["ETag"]})
                part = next(parts, bytearray())
            self._s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": sent})
        except BaseException:
            with suppress(*_FAULTS):  # what is left then, `sweep` finds
                self._s3.abort_multipart_upload(**upload)
            raise

    def _chunks(self, key: str, body: Any, chunk_bytes: int) -> Iterator[bytes]:
        with self._asking_for(key), closing(body):
            yield from body.iter_chunks(chunk_bytes)

    def _unfinished(self) -> Iterator[tuple[dict[str, str], datetime]]:
        """Every upload that was begun here and not completed, with the time when it was begun."""
        pages = self._s3.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
            for each in page.get("Uploads", ()):
                names = {"Key": each["Key"], "UploadId": each["UploadId"]}
                yield {"Bucket": self._bucket, **names}, each["Initiated"]

    def _last_touched(self, upload: dict[str, str], began_at: datetime) -> datetime:
        pages = self._s3.get_paginator("list_parts").paginate(**upload)
        times = (part["LastModified"] for page in pages for part in page.get("Parts", ()))
        return max(times, default=began_at)

    @contextmanager
    def _asking_for(self, key: str) -> Iterator[None]:
        """Turn what boto3 raises, after its own attempts, into NotFound or Unavailable."""
        try:
            yield
        except _FAULTS as error:
            code = _code(error)
            if code == "404":  # an answer without a body: the bucket may be missing, not the blob
                self.check()
            if code in ("404", "NoSuchKey"):
                raise missing(key) from error
            raise _away(key, error) from error


def _in_parts(chunks: Iterable[bytes], part_bytes: int) -> Iterator[bytearray]:
    """Yield the content in parts of `part_bytes`, and at the end what is left, maybe nothing."""
    part = bytearray()
    for chunk in chunks:
        rest = memoryview(chunk)
        while len(part) + len(rest) >= part_bytes:
            room = part_bytes - len(part)
            part += rest[:room]
            rest = rest[room:]
            yield part
            part = bytearray()
        part += rest
    yield part


def _away(what: str, error: Exception) -> Unavailable:
    """Name the kind of error only: its text may tell where storage is, and as whom we ask."""
    logger.warning("Storage failed at %s: %s", what, _code(error))
    return Unavailable(
        f"Storage is away for the moment ({_code(error)}); try again in a while.",
        code=STORAGE_UNAVAILABLE,
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _code(error: Exception) -> str:
    """S3's word for what was wrong (`AccessDenied`), or the class of an error without an answer."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "unknown"))
    return type(error).__name__
