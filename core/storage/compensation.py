"""Blobs are written before the rows that name them; this removes them when the rows fail."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.errors import Unavailable
from core.storage.blobs import BlobStore

logger = logging.getLogger(__name__)


@contextmanager
def delete_on_failure(
    store: BlobStore,
    *keys: str,
    unless: Callable[[BaseException], bool] = lambda error: False,
) -> Iterator[None]:
    """Delete the blobs under `keys` when the block, which writes or records them, raises.

    `unless` tells errors after which rows may name the blobs all the same: then they are kept. A
    storage that is unavailable leaves them behind, with a warning, and the block's own error is
    raised.
    """
    try:
        yield
    except BaseException as error:
        if not unless(error):
            for key in keys:
                _delete(store, key)
        raise


def _delete(store: BlobStore, key: str) -> None:
    try:
        store.delete(key)
    except Unavailable as error:
        logger.warning("The blob %s is left behind: %s", key, error)
