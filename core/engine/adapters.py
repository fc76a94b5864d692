"""The cache of adapter bundles on disk, by the hash of their archive."""

import hashlib
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path

from core.artifacts.archive import unpack
from core.errors import InvalidRequest, NotFound, TunesmithError, Unavailable
from core.spec.bundle import BundleRef
from core.storage.blobs import BlobStore

_SHA256 = re.compile(r"[0-9a-f]{64}")


class AdapterFiles:
    """Fetches, verifies and unpacks each archive once; a folder named by its hash is complete.

    Archives do not block each other. Several engines may share the folder. Nothing is deleted.
    """

    def __init__(self, store: BlobStore, cache_folder: Path) -> None:
        self._store = store
        self._cache_folder = cache_folder
        self._fetching: dict[str, threading.Lock] = {}
        cache_folder.mkdir(parents=True, exist_ok=True)

    def folder(self, sha256: str) -> Path:
        """Return the folder of the bundle with this hash, whether it exists or not."""
        if not _SHA256.fullmatch(sha256):
            raise InvalidRequest(
                f"{sha256[:80]!r} is not a SHA-256 in lower-case hexadecimal.",
                param="adapter.sha256",
                code="invalid_sha256",
            )
        return self._cache_folder / sha256

    def ensure(self, adapter: BundleRef) -> Path:
        """Return the folder of the unpacked bundle; fetch the archive if needed.

        Raises NotFound `adapter_not_found`, or Unavailable `adapter_corrupt` if the archive has
        another hash or cannot be unpacked.
        """
        folder = self.folder(adapter.sha256)
        if not folder.is_dir():
            with self._fetching.setdefault(adapter.sha256, threading.Lock()):
                if not folder.is_dir():
                    self._fetch(adapter, folder)
        return folder

    def _fetch(self, adapter: BundleRef, folder: Path) -> None:
        workspace = Path(tempfile.mkdtemp(prefix=".fetching-", dir=self._cache_folder))
        try:
            archive, bundle = workspace / "bundle.zip", workspace / "bundle"
            try:
                self._store.fetch(adapter.key, archive)
            except NotFound as error:
                raise NotFound(
                    f"The adapter's archive {adapter.key!r} is not in storage.",
                    param="adapter",
                    code="adapter_not_found",
                ) from error
            with archive.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != adapter.sha256:
                raise _corrupt(adapter, f"its SHA-256 is {found}, expected {adapter.sha256}")
            try:
                unpack(archive, bundle)
            except TunesmithError as error:
                raise _corrupt(adapter, error.message) from error
            _publish(bundle, folder)
        finally:
            shutil.rmtree(workspace, ignore_errors=True)


def _corrupt(adapter: BundleRef, reason: str) -> Unavailable:
    return Unavailable(
        f"The adapter's archive {adapter.key!r} cannot be used: {reason}.",
        param="adapter",
        code="adapter_corrupt",
        retry_after_seconds=60,
    )


def _publish(bundle: Path, folder: Path) -> None:
    """Rename the complete bundle, unless another engine was faster."""
    try:
        os.rename(bundle, folder)
    except OSError:
        if not folder.is_dir():
            raise
