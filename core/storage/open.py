"""Which store a process uses: a folder, or S3."""

import re
from dataclasses import dataclass
from pathlib import Path

from core.storage.blobs import BlobStore
from core.storage.local import LocalBlobStore

_S3_URL = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])"
    r"(?:/(?P<prefix>[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*))?/?",
    re.ASCII,
)


@dataclass(frozen=True)
class S3Place:
    """The bucket, and the beginning of all keys in it, which may be empty."""

    bucket: str
    prefix: str


def storage_place(folder: Path | None, url: str | None) -> Path | S3Place:
    """Return where blobs live. ValueError unless exactly one is given and the URL is one of S3."""
    match folder, url:
        case Path(), None:
            return folder
        case None, str():
            return _s3_place(url)
    raise ValueError(
        "Set either TUNESMITH_STORAGE_FOLDER, for blobs in a folder, or TUNESMITH_STORAGE_URL, for "
        f"blobs in S3; {'neither' if folder is None else 'each'} of them is set."
    )


def open_store(folder: Path | None, url: str | None = None) -> BlobStore:
    """Return the store of this place; a folder is created when it is missing."""
    match storage_place(folder, url):
        case S3Place(bucket, prefix):
            from core.storage.s3 import S3BlobStore  # 20 MB, which a folder does without

            return S3BlobStore(bucket, prefix)
        case Path() as path:
            return LocalBlobStore(path)


def _s3_place(url: str) -> S3Place:
    found = _S3_URL.fullmatch(url)
    if found is None:
        raise ValueError(
            "TUNESMITH_STORAGE_URL must be s3://bucket or s3://bucket/prefix. Address, region and "
            "credentials are given in AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY."
        )
    return S3Place(found["bucket"], found["prefix"] or "")
