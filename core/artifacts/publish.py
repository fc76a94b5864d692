"""Writes a folder atomically, even if the process is killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def published_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the block ends without an error.

    The block writes to `<folder>.partial`. Every file is flushed to disk before the rename, so
    `folder` is complete even after a power failure. An existing `folder` is replaced. Only one
    process may write a folder at a time.
    """
    partial = folder.with_name(folder.name + ".partial")
    replaced = folder.with_name(folder.name + ".replaced")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        _flush_tree(partial)
        # rename(2) cannot replace a folder with content, so an existing one is renamed first.
        if folder.exists():
            os.replace(folder, replaced)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    flush(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def flush(path: Path) -> None:
    """Flush the bytes of a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        flush(path)
    flush(folder)
