"""llama.cpp, if it is installed: `make gguf`."""

import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]
SOURCES = ROOT / "build/llama_cpp_python-0.3.36/vendor/llama.cpp"


@pytest.fixture(scope="session")
def llama_cpp() -> Any:
    from core.errors import InvalidRequest
    from core.exports.gguf.llama_cpp import find_llama_cpp

    try:
        return find_llama_cpp(Path(os.environ.get("TUNESMITH_LLAMA_CPP", SOURCES)))
    except InvalidRequest as missing:
        pytest.skip(f"{missing.message} Run `make gguf`.")
