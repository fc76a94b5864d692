"""Responses that stream blobs."""

from urllib.parse import quote

from starlette.responses import StreamingResponse

from core.storage.blobs import BlobStore


def download(
    store: BlobStore,
    key: str,
    *,
    filename: str,
    media_type: str = "application/octet-stream",
) -> StreamingResponse:
    """Return a response that streams a blob; NotFound if it is missing in storage."""
    headers = {
        "content-length": str(store.size(key)),
        "content-disposition": f"attachment; filename*=utf-8''{quote(filename, safe='')}",
    }
    return StreamingResponse(store.read(key), headers=headers, media_type=media_type)
