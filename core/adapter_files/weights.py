"""Reads the header of an untrusted safetensors file, without its data and without the library.

Format: https://github.com/huggingface/safetensors#format. Stricter than the library: what this
accepts, the library reads.
"""

import math
from pathlib import Path
from typing import Any

from core.adapter_files.limits import MAX_DIMENSIONS, MAX_HEADER_BYTES, MAX_TENSOR_NAME, MAX_TENSORS
from core.adapter_files.refusal import RefusedAdapter, shown
from core.datasets.strict_json import BadJson, decode
from core.spec.adapter_file import TensorInfo

DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The formats of trained weights, by their bytes for each number."""
_LENGTH_BYTES = 8
_METADATA = "__metadata__"


def read_tensors(path: Path) -> tuple[TensorInfo, ...]:
    """Return the tensors of the file by name; RefusedAdapter if any byte of it is unaccounted for.

    The order is that of the file's bytes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES + 2 or not 2 <= length <= size - _LENGTH_BYTES:
            raise _refused(f"its header has {length:,} bytes by its own account, the file {size:,}")
        if length > MAX_HEADER_BYTES:
            raise _refused(f"its header has {length:,} bytes; at most {MAX_HEADER_BYTES:,} may be")
        header = file.read(length)
    data_bytes = size - _LENGTH_BYTES - length
    tensors = sorted(_described(_decoded(header)), key=lambda each: (each[1], each[0].name))
    if not tensors:
        raise _refused("it has no tensors")
    position = 0
    for tensor, begin, end in tensors:
        if begin != position:
            raise _refused(f"the bytes of {shown(tensor.name)} overlap others, or leave a gap")
        position = end
    if position != data_bytes:
        raise _refused(f"its tensors have {position:,} bytes, its data {data_bytes:,}")
    return tuple(tensor for tensor, _, _ in tensors)


def _decoded(header: bytes) -> dict[str, Any]:
    try:
        found = decode(header.decode())
    except (UnicodeDecodeError, BadJson) as error:
        raise _refused(f"its header is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise _refused("its header is not a JSON object")
    metadata = found.pop(_METADATA, {})
    is_plain = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
    if not is_plain:
        raise _refused(f"{_METADATA} is not an object of texts")
    if len(found) > MAX_TENSORS:
        raise _refused(f"it has {len(found):,} tensors; at most {MAX_TENSORS:,} may be")
    return found


def _described(header: dict[str, Any]) -> list[tuple[TensorInfo, int, int]]:
    """Return each tensor with the first of its bytes, and the one after its last."""
    return [_tensor(name, entry) for name, entry in header.items()]


def _tensor(name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    if len(name) > MAX_TENSOR_NAME or not name.isascii() or not name.isprintable():
        raise _refused(f"the tensor name {shown(name)} is too long or not printable")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _refused(f"{shown(name)} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in DTYPE_BYTES:
        raise _refused(
            f"{shown(name)} has dtype {shown(str(dtype))}; trained weights have one of "
            f"{', '.join(DTYPE_BYTES)}"
        )
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS or 0 in shape:
        raise _refused(
            f"{shown(name)} has the shape {shown(str(shape))}. An empty or partial shape is what "
            "sharded training (ZeRO-3, FSDP) leaves when it saves without gathering the weights"
        )
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _refused(f"{shown(name)} has invalid data_offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise _refused(f"{shown(name)} has {end - begin:,} bytes, which its shape does not need")
    return TensorInfo(name=name, dtype=dtype, shape=tuple(shape)), begin, end


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**48 for v in values)


def _refused(why: str) -> RefusedAdapter:
    return RefusedAdapter(f"The weights are not a valid safetensors file: {why}.")
