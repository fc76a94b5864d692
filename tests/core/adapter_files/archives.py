"""Adapters, harmless and hostile, written byte by byte, without PEFT."""

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "tunesmith/tiny",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
}
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
SHAPES = {f"{LAYER}.lora_A.weight": [2, 8], f"{LAYER}.lora_B.weight": [8, 2]}


def config(**changes: Any) -> bytes:
    return json.dumps({**CONFIG, **changes}).encode()


def weights(
    shapes: Mapping[str, list[int]] = SHAPES,
    *,
    header: Mapping[str, Any] | bytes | None = None,
    length: int | None = None,
    data: bytes | None = None,
) -> bytes:
    """Return a safetensors file of zeros; `header`, its `length` and the data may lie."""
    position, entries = 0, {}
    for name, shape in shapes.items():
        size = 4
        for each in shape:
            size *= each
        offsets = [position, position + size]
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        position += size
    text = header if isinstance(header, bytes) else json.dumps(header or entries).encode()
    stated = len(text) if length is None else length
    return struct.pack("<Q", stated) + text + (bytes(position) if data is None else data)


def folder(**changes: bytes) -> dict[str, bytes]:
    """Return the files of a harmless adapter; keywords replace or add some, by their name."""
    return {"adapter_config.json": config(), "adapter_model.safetensors": weights(), **changes}


def zipped(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files: Mapping[str, bytes], *members: tarfile.TarInfo, mode: str = "w:gz") -> bytes:
    """Return a tar archive of `files`, and of `members` that have no content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return out.getvalue()


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """Return a tar entry that is no file: a link, a device, a pipe."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def zip_with_mode(name: str, mode: int, content: bytes = b"/etc/passwd") -> bytes:
    """Return a zip archive whose entry has the Unix mode of a link or a device."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for each, data in folder().items():
            archive.writestr(each, data)
        entry = zipfile.ZipInfo(name)
        entry.create_system, entry.external_attr = 3, mode << 16
        archive.writestr(entry, content)
    return out.getvalue()


def overlapping_zip() -> bytes:
    """Return a zip whose two entries are one and the same bytes of the file."""
    content = b"x" * 100
    header = _local(b"a.txt", content)
    body = header + content
    central = _central(b"a.txt", content, 0) + _central(b"b.txt", content, 0)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(central), len(body), 0)
    return body + central + end


def latin_name_zip() -> bytes:
    """Return a zip with a name in Latin-1, which is not marked as UTF-8."""
    name, content = b"gr\xfcn.txt", b"text"
    body = _local(name, content) + content
    central = _central(name, content, 0)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(body), 0)
    return body + central + end


def encrypted_zip() -> bytes:
    """Return a zip whose entry says that it has a password."""
    content = bytearray(zipped({"adapter_config.json": config()}, zipfile.ZIP_STORED))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def _local(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(
            "<4s5H3L2H",
            *(b"PK\x03\x04", 20, 0, 0, 0, 0),
            *(zlib.crc32(content), len(content), len(content), len(name), 0),
        )
        + name
    )


def _central(name: bytes, content: bytes, offset: int) -> bytes:
    return (
        struct.pack(
            "<4s6H3L5H2L",
            *(b"PK\x01\x02", 20, 20, 0, 0, 0, 0),
            *(zlib.crc32(content), len(content), len(content), len(name)),
            *(0, 0, 0, 0, 0, offset),
        )
        + name
    )
