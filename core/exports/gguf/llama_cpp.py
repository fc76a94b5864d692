"""llama.cpp on this machine: the folder of its converters, and its Python package.

The converters and the quantizer run in processes of their own: they bring a `gguf` library of
their own, and a failed check in C ends its process.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from core.errors import InvalidRequest, TunesmithError

PACKAGE = "llama-cpp-python==0.3.36"
"""The version that the tests run; pyproject.toml pins it too."""
CONVERTERS = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion", "gguf-py/gguf")

_INSTALL = (
    "Install the extra `gguf` on the worker and set TUNESMITH_LLAMA_CPP to the folder "
    f"vendor/llama.cpp in the sources of {PACKAGE}; docs/exports-gguf.md has the commands."
)
_LAST_LINES = 12


class ConversionFailed(TunesmithError):
    """llama.cpp's converter or quantizer failed; the message has the end of its output."""

    code = "gguf_failed"


@dataclass(frozen=True)
class LlamaCpp:
    """llama.cpp's converters, and the number of threads that its library may use."""

    folder: Path
    threads: int = 1

    def run(self, module: str, arguments: Sequence[str], text: str | None = None) -> str:
        """Run a module of this package in a process of its own and return what it printed.

        Raises ConversionFailed if it fails.
        """
        done = subprocess.run(
            [sys.executable, "-m", f"{__package__}.{module}", *arguments],
            check=False,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode:
            raise ConversionFailed(_failure(module, done.returncode, done.stderr))
        return done.stdout


def find_llama_cpp(folder: Path | None, threads: int = 1) -> LlamaCpp:
    """Return llama.cpp's parts; InvalidRequest `gguf_unavailable` names those that are missing."""
    missing = [name for name in ("llama_cpp", "sentencepiece") if find_spec(name) is None]
    if folder is None:
        missing.append("TUNESMITH_LLAMA_CPP")
    else:
        missing += [str(folder / name) for name in CONVERTERS if not (folder / name).exists()]
    if missing or folder is None:
        raise InvalidRequest(
            f"This worker cannot write GGUF: {', '.join(missing)} is missing. {_INSTALL}",
            code="gguf_unavailable",
        )
    return LlamaCpp(folder.resolve(), threads)


def _failure(module: str, status: int, output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip() and "byte/s]" not in line]
    cause = "\n".join(lines[-_LAST_LINES:]) or "It printed nothing."
    return (
        f"llama.cpp's {module} ended with status {status}. If another version of llama.cpp knows "
        f"this model, export it as `merged` and convert that. Its last lines:\n{cause}"
    )
