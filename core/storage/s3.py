"""Blobs in a bucket of S3 or a compatible server, through boto3.

boto3 finds credentials, region and endpoint itself: in the AWS_… variables, its files, or the role
of the machine. This module neither reads nor stores them.
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
"""The size of an upload part. A shorter blob needs one request; two parts are in memory."""

MAX_PARTS = 10_000
"""S3's limit of parts per upload."""

RETRY_AFTER_SECONDS = 10

_CONFIG = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=50,  # as many as an API process has threads
    # Uploads are signed or encrypted in transit, and bundles are verified by SHA-256. Some
    # compatible servers reject the extra checksums that boto3 adds by default.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)

_S3_ERRORS = (ClientError, BotoCoreError, Boto3Error)


class S3BlobStore:
    """A `BlobStore` under one prefix of one bucket; safe for many threads and processes at once.

    The blob may exist although a write raised Unavailable, if only the response was lost.
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
        s3_object = self._object(key)
        with self._translating_errors(key):
            body = self._s3.get_object(**s3_object)["Body"]
        return self._chunks(key, body, chunk_bytes)

    def read_range(self, key: str, start: int, length: int) -> Iterator[bytes]:
        s3_object = self._object(key)
        with self._translating_errors(key):
            wanted = f"bytes={start}-{start + length - 1}"
            body = self._s3.get_object(**s3_object, Range=wanted)["Body"]
        return self._chunks(key, body, CHUNK_BYTES)

    def size(self, key: str) -> int:
        s3_object = self._object(key)
        with self._translating_errors(key):
            return int(self._s3.head_object(**s3_object)["ContentLength"])

    def fetch(self, key: str, target: Path) -> None:
        s3_object = self._object(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._translating_errors(key):
            # Downloads parts in parallel into a temporary file that is renamed at the end.
            self._s3.download_file(**s3_object, Filename=str(target))

    def delete(self, key: str) -> None:
        s3_object = self._object(key)
        with self._translating_errors(key):
            self._s3.delete_object(**s3_object)

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def sweep(self, older_than_seconds: float) -> None:
        oldest_kept = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        with self._translating_errors("unfinished uploads"):
            for upload, began_at in self._unfinished():
                if began_at >= oldest_kept:
                    continue
                with suppress(self._s3.exceptions.NoSuchUpload):  # already gone
                    if self._last_touched(upload, began_at) < oldest_kept:
                        self._s3.abort_multipart_upload(**upload)

    def check(self) -> None:
        try:
            self._s3.head_bucket(Bucket=self._bucket)
        except _S3_ERRORS as error:
            raise _unavailable(f"the bucket {self._bucket!r}", error) from error

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + checked_key(key)}

    def _write(self, key: str, chunks: Iterable[bytes], part_bytes: int) -> Blob:
        s3_object = self._object(key)
        digest = hashlib.sha256()
        length = 0

        def parts() -> Iterator[bytearray]:
            nonlocal length
            for part in _in_parts(chunks, part_bytes):
                digest.update(part)
                length += len(part)
                yield part

        with self._translating_errors(key):
            self._send(s3_object, parts(), part_bytes)
        return Blob(key, length, digest.hexdigest())

    def _send(self, s3_object: dict[str, str], parts: Iterator[bytearray], part_bytes: int) -> None:
        """Upload the object in one request, or as a multipart upload that appears when complete."""
        part = next(parts)
        if len(part) < part_bytes:
            self._s3.put_object(**s3_object, Body=part)
            return
        upload = s3_object | {"UploadId": self._s3.create_multipart_upload(**s3_object)["UploadId"]}
        sent: list[dict[str, Any]] = []
        try:
            while part:  # the last part may be empty
                if len(sent) == MAX_PARTS:
                    raise TooLarge(
                        f"The file is larger than the {MAX_PARTS * part_bytes} bytes that storage "
                        "accepts."
                    )
                number = len(sent) + 1
                answer = self._s3.upload_part(**upload, PartNumber=number, Body=part)
                sent.append({"PartNumber": number, "ETag": answer["ETag"]})
                part = next(parts, bytearray())
            self._s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": sent})
        except BaseException:
            with suppress(*_S3_ERRORS):  # `sweep` removes what remains
                self._s3.abort_multipart_upload(**upload)
            raise

    def _chunks(self, key: str, body: Any, chunk_bytes: int) -> Iterator[bytes]:
        with self._translating_errors(key), closing(body):
            yield from body.iter_chunks(chunk_bytes)

    def _unfinished(self) -> Iterator[tuple[dict[str, str], datetime]]:
        """Yield every incomplete multipart upload under the prefix, with its start time."""
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
    def _translating_errors(self, key: str) -> Iterator[None]:
        """Convert boto3's errors, after its own retries, into NotFound or Unavailable."""
        try:
            yield
        except _S3_ERRORS as error:
            code = _code(error)
            if code == "404":  # without a body, this may also mean a missing bucket
                self.check()
            if code in ("404", "NoSuchKey"):
                raise missing(key) from error
            raise _unavailable(key, error) from error


def _in_parts(chunks: Iterable[bytes], part_bytes: int) -> Iterator[bytearray]:
    """Yield the content in parts of `part_bytes`; the last part may be shorter or empty."""
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


def _unavailable(what: str, error: Exception) -> Unavailable:
    """Return an error with the code only: the text may reveal the endpoint or the credentials."""
    logger.warning("Storage failed at %s: %s", what, _code(error))
    return Unavailable(
        f"Storage is temporarily unavailable ({_code(error)}); try again later.",
        code=STORAGE_UNAVAILABLE,
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _code(error: Exception) -> str:
    """Return S3's error code, such as `AccessDenied`, or the class of an error without response."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "unknown"))
    return type(error).__name__
