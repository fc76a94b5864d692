"""Prints which files Python needs on this machine: its folders, and the libraries that it loads.

A program of its own, outside the sandbox: `python -I -S -c <this> <packages folder> <package>…`.
"""

import ctypes
import importlib
import json
import os
import sys
from contextlib import suppress

_SKIPPED = ("_test", "_ctypes_test", "_tkinter", "_xx", "xx")  # for tests, and for windows


class _Library(ctypes.Structure):
    """The first fields of C's `struct dl_phdr_info`."""

    _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))


def survey(folders: list[str], packages: list[str]) -> dict[str, list[str]]:
    """Import all extension modules, and return the folders of Python and the loaded libraries."""
    standard = list(sys.path)
    sys.path.extend(folders)
    for name in (*_extensions(standard), *packages):
        with suppress(ImportError):
            importlib.import_module(name)
    return {"folders": standard, "libraries": _loaded()}


def _extensions(folders: list[str]) -> list[str]:
    found = []
    for folder in folders:
        if os.path.basename(folder) == "lib-dynload":
            found += [file.split(".")[0] for file in sorted(os.listdir(folder)) if ".so" in file]
    return [name for name in found if not name.startswith(_SKIPPED)]


def _loaded() -> list[str]:
    """Return the paths under which the loader opened the libraries; it will look there again."""
    found: list[str] = []

    def visit(library: "ctypes._Pointer[_Library]", size: int, data: int) -> int:
        found.append(os.fsdecode(library.contents.name or b""))
        return 0

    pointer = ctypes.POINTER(_Library)
    visitor = ctypes.CFUNCTYPE(ctypes.c_int, pointer, ctypes.c_size_t, ctypes.c_void_p)
    ctypes.CDLL(None).dl_iterate_phdr(visitor(visit), None)
    return found


if __name__ == "__main__":
    print(json.dumps(survey(sys.argv[1:2], sys.argv[2:])))
