"""Tells from its first bytes what a file is. Names are never trusted."""

from pathlib import Path
from typing import Literal

from core.adapter_files.refusal import RefusedAdapter, shown

Kind = Literal["zip", "gzip", "tar", "safetensors", "text", "other"]

_TAR_MAGIC_AT = 257
HEAD_BYTES = 512
"""As much as `kind_of` looks at."""
_TEXT_CONTROLS = frozenset({7, 8, 9, 10, 12, 13, 27})


def kind_of(head: bytes, size: int) -> Kind:
    """Return what a file of `size` bytes is that begins with `head`."""
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"):
        return "zip"
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return "tar"
    if len(head) > 8 and head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") < 2**40:
        return "safetensors"
    if _is_text(head):
        return "text"
    return "other"


def refuse_code(head: bytes, size: int, name: str) -> None:
    """Raise RefusedAdapter for content that runs code when it is loaded, or that nests archives.

    Pickles are what `torch.save` writes: a zip file since PyTorch 1.6, a plain pickle before.
    """
    kind = kind_of(head, size)
    if kind == "safetensors":  # its first bytes are a length, which may look like a pickle's
        return
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        what = "is a pickle, which runs code when it is loaded"
    elif kind in ("zip", "gzip", "tar"):
        what = "is an archive inside the archive (files of torch.save are archives, too)"
    elif kind == "text" and (head.startswith((b"c__builtin__\n", b"cos\n", b"cposix\n", b"(dp"))):
        what = "is a pickle, which runs code when it is loaded"
    elif head[:4] == b"\x7fELF" or head[:2] == b"MZ":
        what = "is a program"
    else:
        return
    raise RefusedAdapter(
        f"{shown(name)} {what}. Only safetensors weights and text files are accepted: leave it "
        "out, or save the adapter again with PEFT's save_pretrained."
    )


def head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _is_text(head: bytes) -> bool:
    """Return whether the bytes are UTF-8, except for a character that is cut at their end."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4 or len(head) < HEAD_BYTES:
            return False
    return all(byte >= 32 or byte in _TEXT_CONTROLS for byte in head)
