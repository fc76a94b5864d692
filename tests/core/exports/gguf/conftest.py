from typing import Any

import pytest


@pytest.fixture(scope="session")
def llama_cpp() -> Any:
    from tests.llama_cpp_sources import llama_cpp_or_skip

    return llama_cpp_or_skip()
