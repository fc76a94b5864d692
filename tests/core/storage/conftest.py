"""Both stores, with a look behind each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.storage.blobs import BlobStore
from core.storage.open import S3Location, open_store, storage_location
from tests.s3 import S3Server


@dataclass(frozen=True)
class Place:
    """A store and where its blobs live. `opened` is code that opens it in another process."""

    store: BlobStore
    opened: str

    def blobs(self) -> list[str]:
        """The keys of all blobs, as whoever looks into the folder or the bucket sees them."""
        raise NotImplementedError

    def unfinished(self) -> list[str]:
        """What was begun and is not over."""
        raise NotImplementedError


@dataclass(frozen=True)
class FolderPlace(Place):
    folder: Path

    def blobs(self) -> list[str]:
        return [name for name in self._files() if not name.startswith(".incoming/")]

    def unfinished(self) -> list[str]:
        return [name for name in self._files() if name.startswith(".incoming/")]

    def _files(self) -> list[str]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.folder)) for path in found)


@dataclass(frozen=True)
class S3Bucket(Place):
    s3: Any
    bucket: str
    prefix: str

    def blobs(self) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return sorted(each["Key"].removeprefix(f"{self.prefix}/") for each in found)

    def unfinished(self) -> list[str]:
        found = self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [each["Key"].removeprefix(f"{self.prefix}/") for each in found]


@pytest.fixture
def folder_place(tmp_path: Path) -> FolderPlace:
    folder = tmp_path / "blobs"
    opened = f"open_store(Path({str(folder)!r}))"
    return FolderPlace(open_store(folder), opened, folder)


@pytest.fixture
def s3_place(s3_server: S3Server, s3_url: str) -> S3Bucket:
    place = storage_location(None, s3_url)
    opened = f"open_store(None, {s3_url!r})"
    assert isinstance(place, S3Location)
    return S3Bucket(open_store(None, s3_url), opened, s3_server.client, place.bucket, place.prefix)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each kind of store in turn, empty."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture
def store(place: Place) -> BlobStore:
    return place.store
