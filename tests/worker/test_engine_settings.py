"""What the engine refuses before it starts."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from worker.engine_settings import EngineSettings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "engine", "192.0.2.1"])
def test_an_open_address_needs_a_key(tmp_path: Path, host: str) -> None:
    given = {"storage_folder": tmp_path, "cache_folder": tmp_path, "host": host}
    with pytest.raises(ValidationError, match="TUNESMITH_ENGINE_KEY"):
        EngineSettings(**given)
    assert EngineSettings(**given, key="s3cret").host == host
