"""Responses that stream blobs, or one range of bytes of a blob (RFC 9110, section 14)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from fastapi import Header
from starlette.responses import Response, StreamingResponse

from api.errors import envelope
from core.storage.blobs import BlobStore

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


@dataclass(frozen=True)
class Part:
    """Bytes of a blob: a file in an archive that is not compressed."""

    offset: int
    bytes: int


def download(
    store: BlobStore,
    key: str,
    *,
    filename: str,
    media_type: str = "application/octet-stream",
    wanted: str | None = None,
    part: Part | None = None,
) -> Response:
    """Return a response that streams a blob, or a `part` of it; NotFound if it is missing.

    `wanted` is the Range header. Anything but one range of bytes is ignored, as HTTP allows.
    The response to a range that begins after the end is an error 416.
    """
    whole = part or Part(0, store.size(key))
    headers = {
        "accept-ranges": "bytes",
        "content-disposition": f"attachment; filename*=utf-8''{quote(filename, safe='')}",
    }
    found = None if wanted is None else _range(wanted, whole.bytes)
    if found is None:
        headers["content-length"] = str(whole.bytes)
        content = store.read(key) if part is None else _read(store, key, whole)
        return StreamingResponse(content, headers=headers, media_type=media_type)
    first, last = found
    if first > last:
        return _unsatisfiable(whole.bytes)
    headers["content-length"] = str(last - first + 1)
    headers["content-range"] = f"bytes {first}-{last}/{whole.bytes}"
    content = _read(store, key, Part(whole.offset + first, last - first + 1))
    return StreamingResponse(content, status_code=206, headers=headers, media_type=media_type)


def _read(store: BlobStore, key: str, part: Part) -> Iterator[bytes]:
    return store.read_range(key, part.offset, part.bytes) if part.bytes else iter(())


def _range(wanted: str, size: int) -> tuple[int, int] | None:
    """Return the first and the last byte; None if the header is not one range of bytes.

    The first is after the last if the blob has none of them.
    """
    found = _RANGE.fullmatch(wanted.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:  # so many of the last bytes
        first, last = max(0, size - int(found[2])), size - 1
    else:
        first = int(found[1])
        last = min(int(found[2]), size - 1) if found[2] else size - 1
        if found[2] and int(found[2]) < first:  # invalid, so ignored
            return None
    return first, last


def _unsatisfiable(size: int) -> Response:
    message = f"The file has {size} bytes, and none in the requested range."
    response = envelope(416, message, param="Range", code="range_not_satisfiable")
    response.headers["content-range"] = f"bytes */{size}"
    return response


RangeHeader = Annotated[str | None, Header(alias="range", description="one range of bytes")]
"""A handler's parameter: which bytes of a download are wanted."""
