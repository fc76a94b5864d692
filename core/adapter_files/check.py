"""Unpacks and checks uploaded adapters; `python -m core.adapter_files.check` is the child process.

The child limits its own memory, wall time and CPU time; `bounded.py` starts it.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from core.adapter_files.config import read_config
from core.adapter_files.content import Kind, head_of, kind_of, refuse_code
from core.adapter_files.entries import Entries, safe_name
from core.adapter_files.folder import (
    adapter_folder,
    read_parts,
    require_small_texts,
)
from core.adapter_files.limits import MAX_CONFIG_BYTES, MAX_FILES, MAX_TEXT_BYTES
from core.adapter_files.refusal import RefusedAdapter, shown
from core.adapter_files.tar_archive import unpack_tar
from core.adapter_files.weights import read_tensors
from core.adapter_files.zip_archive import unpack_zip
from core.datasets.limits import limit_process, limited_parser
from core.datasets.strict_json import BadJson, decode
from core.errors import TunesmithError
from core.spec.adapter_file import CONFIG_FILE, WEIGHTS_FILE, AdapterParts, AdapterReport

MAX_LISTED_FILES = 50
ARCHIVES: tuple[Kind, ...] = ("zip", "gzip", "tar")


def unpack(archive: Path, folder: Path) -> tuple[str, ...]:
    """Unpack an archive into an empty folder and return the names; RefusedAdapter if unsafe."""
    entries = Entries(folder)
    kind = kind_of(head_of(archive), archive.stat().st_size)
    match kind:
        case "zip":
            unpack_zip(archive, entries)
        case "gzip" | "tar":
            unpack_tar(archive, entries, compressed=kind == "gzip")
        case _:
            raise RefusedAdapter("The file is no zip or tar archive.")
    require_small_texts(folder, entries.names)
    return entries.names


def gather(files: Sequence[tuple[str, Path]], folder: Path) -> AdapterParts:
    """Put an adapter's two files into `folder`, and return its checked parts.

    `files` are one archive, or the files of a folder, as (name, path). RefusedAdapter for anything
    that an import must not read.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        unpacked = Path(temporary)
        if len(files) == 1:
            unpack(files[0][1], unpacked)
        else:
            _copy(files, unpacked)
        found = adapter_folder(unpacked)
        parts = read_parts(found)
        folder.mkdir()
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.move(found / name, folder / name)
    return parts


def _copy(files: Sequence[tuple[str, Path]], folder: Path) -> None:
    entries = Entries(folder)
    for name, path in files:
        size = path.stat().st_size
        plain = entries.admit(name.rpartition("/")[2], size)
        refuse_code(head_of(path), size, plain)
        shutil.copyfile(path, folder / plain)
    require_small_texts(folder, entries.names)


def check(path: Path, filename: str) -> AdapterReport:
    """Return what an uploaded file holds, or why nothing can be imported from it."""
    try:
        size = path.stat().st_size
        kind = kind_of(head_of(path), size)
        if kind in ARCHIVES:
            return _check_archive(path)
        if kind == "safetensors":
            tensors = read_tensors(path)
            numbers = sum(_count(each.shape) for each in tensors)
            return AdapterReport(holds="weights", tensors=len(tensors), parameters=numbers)
        return _check_text(path, kind, filename)
    except TunesmithError as error:
        return AdapterReport(holds=None, problem=error.message)
    except MemoryError:
        return AdapterReport(holds=None, problem="The check of the file ran out of memory.")


def _check_archive(path: Path) -> AdapterReport:
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        folder = Path(temporary)
        names = unpack(path, folder)
        parts = read_parts(adapter_folder(folder))
    return AdapterReport(
        holds="archive",
        files=names[:MAX_LISTED_FILES],
        method=parts.config.method,
        task_type=parts.config.task_type,
        base_model_name=parts.config.base_model_name,
        tensors=len(parts.tensors),
        parameters=sum(_count(each.shape) for each in parts.tensors),
    )


def _check_text(path: Path, kind: Kind, filename: str) -> AdapterReport:
    """Check one file of a folder that is no weights: `adapter_config.json`, or one that helps."""
    safe_name(filename.rpartition("/")[2])
    refuse_code(head_of(path), path.stat().st_size, filename)
    if kind != "text" or path.stat().st_size > MAX_TEXT_BYTES:
        raise RefusedAdapter(
            f"{shown(filename)} is no zip or tar archive, no safetensors file and no text."
        )
    if path.stat().st_size > MAX_CONFIG_BYTES:
        return AdapterReport(holds="other")
    try:
        found = decode(path.read_bytes().decode())
    except (UnicodeDecodeError, BadJson):
        return AdapterReport(holds="other")
    if not isinstance(found, dict) or "peft_type" not in found:
        return AdapterReport(holds="other")
    config = read_config(path.read_bytes())
    return AdapterReport(
        holds="config",
        method=config.method,
        task_type=config.task_type,
        base_model_name=config.base_model_name,
    )


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def main() -> None:
    """Check one file, or gather the files of an import; print one line of JSON."""
    parser = limited_parser()
    parser.add_argument("--filename", default="")
    parser.add_argument("--gather", type=json.loads, help="[[name, path], …] into the path")
    arguments = parser.parse_args()
    limit_process(arguments)
    if arguments.gather is None:
        print(check(arguments.path, arguments.filename).model_dump_json())
        return
    found: AdapterParts | AdapterReport
    try:
        files = [(name, Path(path)) for name, path in arguments.gather[:MAX_FILES]]
        found = gather(files, arguments.path / "adapter")
    except TunesmithError as error:
        found = AdapterReport(holds=None, problem=error.message)
    except MemoryError:
        found = AdapterReport(holds=None, problem="The check of the file ran out of memory.")
    print(TypeAdapter(AdapterParts | AdapterReport).dump_json(found).decode())


if __name__ == "__main__":
    main()
