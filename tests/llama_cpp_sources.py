"""llama.cpp, if `make gguf` has installed it."""

import os
from pathlib import Path

import pytest

from core.errors import InvalidRequest
from core.exports.gguf.llama_cpp import LlamaCpp, find_llama_cpp

SOURCES = Path(__file__).parents[1] / "build/llama_cpp_python-0.3.36/vendor/llama.cpp"


def llama_cpp_or_skip() -> LlamaCpp:
    try:
        return find_llama_cpp(Path(os.environ.get("TUNESMITH_LLAMA_CPP", SOURCES)))
    except InvalidRequest as missing:
        pytest.skip(f"run `make gguf`: {missing.message}")
