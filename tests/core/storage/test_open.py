"""Which storage a process uses, and what it says when that is not clear."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.storage.local import LocalBlobStore
from core.storage.open import S3Location, open_store, storage_location
from core.storage.settings import StorageSettings


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://blobs", "blobs", ""),
        ("s3://blobs/", "blobs", ""),
        ("s3://my.blobs-2/team/a_b.c/", "my.blobs-2", "team/a_b.c"),
    ],
)
def test_url_names_bucket_and_prefix(url: str, bucket: str, prefix: str) -> None:
    assert storage_location(None, url) == S3Location(bucket, prefix)


@pytest.mark.parametrize(
    "url",
    [
        "blobs",
        "s3:/blobs",
        "S3://blobs",
        "https://blobs.example.org",
        "s3://",
        "s3://ab",
        "s3://Blobs",
        "s3://key:secret@blobs",
        "s3://blobs/..",
        "s3://blobs/a//b",
        "s3://blobs/a?versionId=1",
        "s3://blobs/\u00e4",
        "s3://blobs\n",
    ],
)
def test_any_other_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="AWS_ENDPOINT_URL_S3") as raised:
        storage_location(None, url)
    assert "secret" not in str(raised.value)


def test_exactly_one_place_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="neither is set"):
        StorageSettings()
    monkeypatch.setenv("TUNESMITH_STORAGE_FOLDER", str(tmp_path))
    assert StorageSettings().storage_folder == tmp_path
    monkeypatch.setenv("TUNESMITH_STORAGE_URL", "s3://blobs")
    with pytest.raises(ValueError, match="both are set"):
        StorageSettings()
    monkeypatch.delenv("TUNESMITH_STORAGE_FOLDER")
    assert StorageSettings().storage_url == "s3://blobs"


def test_folder_is_created_when_it_is_missing(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path / "new" / "blobs"), LocalBlobStore)
    assert (tmp_path / "new" / "blobs").is_dir()


def test_a_folder_needs_no_boto3(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom core.storage.open import open_store\n"
        f"open_store(Path({str(tmp_path)!r}))\n"
        "print([name for name in sys.modules if 'boto' in name or 's3transfer' in name])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "[]\n"
