"""Downloads a base from the Hugging Face hub: `python -m worker.downloads.fetch`, a process of its
own, so that nothing waits for the hub and the download can be stopped at any time.

It reads a NamedSource from its first argument and writes one JSON message per line: progress,
and at the end `{"done": true}` or `{"error": …}`. It ends with its parent, which holds its stdin.
Files that are complete are kept, so another attempt continues with the others.
"""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars, filter_repo_objects

from core.spec.base_files import NamedSource
from core.spec.base_model import BaseModelSpec

SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.md", "LICENSE*")
WEIGHT_FILES = ("*.safetensors",)
LEFT_OUT = ("original/*", "onnx/*", "openvino/*", "consolidated*", "*.gguf")
"""Copies of the weights for other programs."""

PROGRESS_SECONDS = 1.0
ABANDONED_AFTER_SECONDS = 600.0
"""A partial file that nobody has written to for so long was left by a killed download."""


class Refused(Exception):
    """The download failed for a reason that another attempt would meet, too."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class RemoteFile:
    """A file to download; its content is stored under the name `blob`."""

    bytes: int
    blob: str


def main() -> None:
    base = NamedSource.model_validate_json(sys.argv[1]).spec
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # over plain HTTP, a broken transfer continues where it broke, and partial files show progress
    constants.HF_HUB_DISABLE_XET = True
    disable_progress_bars()
    try:
        download(base, _send)
        _send({"done": True})
    except Refused as error:
        _send({"error": str(error), "code": error.code})
    except Exception as error:
        _send({"error": f"{type(error).__name__}: {error}", "code": None})


def download(base: BaseModelSpec, send: Callable[[dict[str, Any]], None]) -> None:
    """Download all files that a run needs; Refused, or another error that may pass."""
    repository = Path(constants.HF_HUB_CACHE) / f"models--{base.source.replace('/', '--')}"
    blobs = repository / "blobs"
    _delete_abandoned(blobs)
    try:
        files = _files_of(base)
        _require_room(files, blobs)
        with _Progress(files, blobs, send):
            for patterns in (SMALL_FILES, WEIGHT_FILES):  # weights last: they complete the base
                snapshot_download(
                    base.source,
                    revision=base.revision,
                    allow_patterns=list(patterns),
                    ignore_patterns=list(LEFT_OUT),
                )
    except Refused:
        raise
    except Exception as error:
        raise _explained(base, error) from error


def _files_of(base: BaseModelSpec) -> list[RemoteFile]:
    tree = HfApi().list_repo_tree(base.source, recursive=True, revision=base.revision)
    files = {each.path: each for each in tree if isinstance(each, RepoFile)}
    wanted = _chosen(files, (*SMALL_FILES, *WEIGHT_FILES))
    if not _chosen(files, WEIGHT_FILES):
        raise Refused(
            "unsupported_model",
            f"{base.source} has no weights in safetensors on the hub, which are the only ones "
            "that are read.",
        )
    return [
        RemoteFile(file.size, file.blob_id if file.lfs is None else file.lfs.sha256)
        for file in (files[path] for path in wanted)
    ]


def _chosen(paths: Iterable[str], patterns: tuple[str, ...]) -> list[str]:
    return list(
        filter_repo_objects(paths, allow_patterns=list(patterns), ignore_patterns=list(LEFT_OUT))
    )


class _Progress:
    """Sends the number of bytes on the disk every second during a block, and at its end."""

    def __init__(
        self, files: list[RemoteFile], blobs: Path, send: Callable[[dict[str, Any]], None]
    ) -> None:
        self._files = files
        self._blobs = blobs
        self._send = send
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _report(self) -> None:
        total = sum(file.bytes for file in self._files)
        has_ended = False
        while not has_ended:
            has_ended = self._ended.wait(PROGRESS_SECONDS)
            done = sum(_bytes_of(file, self._blobs) for file in self._files)
            self._send({"bytes": done, "total_bytes": total})


def _bytes_of(file: RemoteFile, blobs: Path) -> int:
    if (blobs / file.blob).exists():
        return file.bytes
    partial = [_size(path) for path in blobs.glob(f"{file.blob}.*incomplete")]
    return min(file.bytes, max(partial, default=0))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it has just been completed
        return 0


def _require_room(files: list[RemoteFile], blobs: Path) -> None:
    blobs.mkdir(parents=True, exist_ok=True)
    needed = sum(file.bytes - _bytes_of(file, blobs) for file in files)
    free = shutil.disk_usage(blobs).free
    if needed > free:
        raise Refused(
            "disk_full",
            f"The download needs {needed / 1e9:.2f} GB, but the disk of HF_HOME has "
            f"{free / 1e9:.2f} GB left. Free some space, or set another HF_HOME.",
        )


def _delete_abandoned(blobs: Path) -> None:
    for path in blobs.glob("*.incomplete"):
        if time.time() - path.stat().st_mtime > ABANDONED_AFTER_SECONDS:
            path.unlink(missing_ok=True)


def _explained(base: BaseModelSpec, error: Exception) -> Exception:
    """Return Refused if another attempt would fail as well, otherwise the error itself."""
    cause = error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else error
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    match cause:
        case GatedRepoError():
            return Refused(
                "base_download_refused",
                f"{base.source} is gated. Accept its license at its page of the hub, and set "
                "HF_TOKEN for the light worker.",
            )
        case RevisionNotFoundError():
            return Refused(
                "base_download_refused",
                f"{base.source} has no revision {base.revision!r} on the hub. Correct the catalog.",
            )
        case RepositoryNotFoundError():
            return Refused(
                "base_download_refused",
                f"The hub has no repository {base.source}, or it is private. Check its source "
                "in the catalog, and HF_TOKEN of the light worker.",
            )
        case HfHubHTTPError() if status in (401, 403):
            return Refused(
                "base_download_refused",
                f"The hub refuses {base.source} with status {status}. Check HF_TOKEN of the "
                "light worker.",
            )
        case OfflineModeIsEnabled():
            return Refused(
                "base_missing", "Downloads are not allowed on the light worker (HF_HUB_OFFLINE)."
            )
        case _:
            return cause


def _send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
