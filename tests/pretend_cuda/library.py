"""Compiles and loads the library of the pretend device."""

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")
BUILT = Path(__file__).parents[2] / "build" / "pretend-cuda"


def missing() -> str | None:
    """Return why the device cannot be had on this machine; None if it can."""
    if sys.platform != "linux":
        return "the pretend CUDA device is only loaded on Linux"
    if _compiler() is None:
        return "the pretend CUDA device needs a C++ compiler (apt-get install g++)"
    version = importlib.metadata.version("torch")
    if "+cu" in version or (_torch() / "lib" / "libtorch_cuda.so").exists():
        return f"torch {version} has a real CUDA device in it"
    return None


def load() -> None:
    """Let every later import of torch in this process see a CUDA device. Call it before torch."""
    if "torch" in sys.modules:
        raise RuntimeError("The pretend CUDA device must be loaded before torch.")
    ctypes.CDLL(str(built()), mode=ctypes.RTLD_GLOBAL)


def built() -> Path:
    """Return the compiled library, for this source and this torch. Takes some seconds once."""
    version = importlib.metadata.version("torch")
    text = SOURCE.read_bytes() + version.encode()
    library = BUILT / f"{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not library.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(f".{os.getpid()}.partial")
        _compile(partial)
        partial.replace(library)
    return library


def _compile(target: Path) -> None:
    compiler, torch = _compiler(), _torch()
    assert compiler is not None
    include, libraries = torch / "include", torch / "lib"
    command = [compiler, "-std=c++20", "-fPIC", "-shared", str(SOURCE), "-o", str(target)]
    command += [f"-I{include}", f"-I{include / 'torch' / 'csrc' / 'api' / 'include'}"]
    command += [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-Wl,--no-as-needed"]
    subprocess.run([*command, "-ltorch_cpu", "-lc10"], check=True)


def _compiler() -> str | None:
    return shutil.which("g++") or shutil.which("c++")


def _torch() -> Path:
    """Return the folder of torch, without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent
