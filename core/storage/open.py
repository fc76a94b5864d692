"""Opens the store of a process: a folder, or S3."""

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
class S3Location:
    """A bucket, and the prefix of all keys in it, which may be empty."""

    bucket: str
    prefix: str


def storage_location(folder: Path | None, url: str | None) -> Path | S3Location:
    """Return the location of the blobs; ValueError unless exactly one valid setting is given."""
    match folder, url:
        case Path(), None:
            return folder
        case None, str():
            return _s3_location(url)
    raise ValueError(
        "Set either TUNESMITH_STORAGE_FOLDER, for blobs in a folder, or TUNESMITH_STORAGE_URL, for "
        f"blobs in S3; {'neither is' if folder is None else 'both are'} set."
    )


def open_store(folder: Path | None, url: str | None = None) -> BlobStore:
    """Return the store at this location; a missing folder is created."""
    match storage_location(folder, url):
        case S3Location(bucket, prefix):
            from core.storage.s3 import S3BlobStore  # imports 20 MB that a folder does not need

            return S3BlobStore(bucket, prefix)
        case Path() as path:
            return LocalBlobStore(path)


def _s3_location(url: str) -> S3Location:
    found = _S3_URL.fullmatch(url)
    if found is None:
        raise ValueError(
            "TUNESMITH_STORAGE_URL must be s3://bucket or s3://bucket/prefix. Set the endpoint, "
            "region and credentials with AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    return S3Location(found["bucket"], found["prefix"] or "")
