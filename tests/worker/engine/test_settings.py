"""What the engine refuses before it starts, and where it says that it is."""

import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.catalog.bases import Catalog
from core.errors import InvalidRequest
from core.spec.generation import GenerationRequest, SamplingSpec, TokenPrompt
from worker.engine.serve import build_engine
from worker.engine.settings import EngineSettings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "engine", "192.0.2.1"])
def test_an_open_address_needs_a_key(tmp_path: Path, host: str) -> None:
    given = {"storage_folder": tmp_path, "cache_folder": tmp_path, "host": host}
    with pytest.raises(ValidationError, match="TUNESMITH_ENGINE_KEY"):
        EngineSettings(**given)
    assert EngineSettings(**given, key="s3cret").host == host


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://127.0.0.1:8001"),
        ({"host": "::1", "port": 9000}, "http://[::1]:9000"),
        ({"host": "192.0.2.1"}, "http://192.0.2.1:8001"),
        ({"host": "0.0.0.0"}, f"http://{socket.gethostname()}:8001"),
        ({"host": "::"}, f"http://{socket.gethostname()}:8001"),
        ({"host": "0.0.0.0", "url": "https://engines.example.org"}, "https://engines.example.org"),
    ],
)
def test_an_engine_is_reached_where_it_listens_or_where_it_is_told(
    tmp_path: Path, given: dict, url: str
) -> None:
    folders = {"storage_folder": tmp_path, "cache_folder": tmp_path, "key": "s3cret"}
    assert EngineSettings(**folders, **given).reached_at == url


def test_the_memory_that_is_set_is_what_models_may_fill(tmp_path: Path) -> None:
    settings = EngineSettings(
        storage_folder=tmp_path, cache_folder=tmp_path / "cache", model_memory_mib=1
    )
    _, reader = build_engine(settings)
    asked = GenerationRequest(
        id="r",
        base=Catalog.load().resolve("tunesmith/tiny"),
        prompt=TokenPrompt(tokens=(1,)),
        sampling=SamplingSpec(seed=0),
    )
    with pytest.raises(InvalidRequest, match="the engine may use 1 MiB"):
        reader.read(asked)
