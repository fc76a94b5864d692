"""Fetches what a row names, and checks that it is what was stored."""

from pathlib import Path

from core.artifacts.archive import unpack
from core.artifacts.manifest import corrupt, sha256_of
from core.spec.bundle import BundleRef
from core.spec.run_request import archive_of
from core.storage.blobs import BlobStore


def fetch_checked(store: BlobStore, ref: BundleRef, archive: Path) -> None:
    """Fetch an archive; NotFound if it is missing, `artifact_corrupt` if its hash differs."""
    store.fetch(ref.key, archive)
    found = sha256_of(archive)
    if found != ref.sha256:
        archive.unlink()
        raise corrupt(f"{ref.key} in storage has the SHA-256 {found}, not {ref.sha256}.")


def fetch_bundle(store: BlobStore, ref: BundleRef, folder: Path) -> None:
    """Fetch a bundle and unpack it into the new `folder`; errors as those of `fetch_checked`."""
    archive = archive_of(folder)
    fetch_checked(store, ref, archive)
    unpack(archive, folder)
    archive.unlink()
