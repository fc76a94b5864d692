"""A folder that appears complete or not at all, whatever kills the process that writes it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def published_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on leaving the block it becomes `folder`, durably.

    The block fills `<folder>.partial`. Every file is flushed to disk before the rename, so
    a folder under its final name has all its bytes even after a power cut. An earlier
    `folder` is replaced; one writer at a time.
    """
    partial = folder.with_name(folder.name + ".partial")
    replaced = folder.with_name(folder.name + ".replaced")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        _flush_tree(partial)
        # rename(2) replaces no folder that has content, so an earlier one steps aside first.
        if folder.exists():
            os.replace(folder, replaced)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    flush(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        flush(path)
    flush(folder)
