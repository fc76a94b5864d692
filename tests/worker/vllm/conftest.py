"""A vLLM server, two LoRA adapters in storage, a bridge, and our own engine beside it.

`TUNESMITH_TEST_VLLM` may name a Python that has vLLM: then a real server runs as well, and every
comparison is made with both.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.spec.strategy import LoraSpec, StrategySpec
from core.storage.open import open_store
from tests.api.live import serve
from tests.core.engine.bundles import write_bundle
from tests.worker.serving import BASE, Service, serving
from tests.worker.vllm.fake import FakeVllm
from tests.worker.vllm.real import real_vllm
from tests.worker.vllm.serving import BridgeService, bridging, settings_for
from worker.engine.settings import EngineSettings

REAL = os.environ.get("TUNESMITH_TEST_VLLM")


@pytest.fixture(scope="session")
def storage(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def make_adapter(storage, tmp_path_factory):
    """Make an adapter of random weights and put it into storage."""

    def make(strategy: StrategySpec, **options) -> dict:
        folder = tmp_path_factory.mktemp("bundle") / "bundle"
        bundle = write_bundle(folder, open_store(storage), BASE, strategy, **options)
        return bundle.ref.model_dump()

    return make


@pytest.fixture(scope="session")
def adapters(make_adapter) -> list[dict]:
    """Two that make the base answer otherwise, of different ranks, one with a rank of its own."""
    return [
        make_adapter(LoraSpec(rank=4, alpha=8), seed=1),
        make_adapter(
            LoraSpec(
                rank=8,
                alpha=8,
                target_modules=("q_proj", "v_proj", "down_proj"),
                use_rslora=True,
                rank_pattern={"q_proj": 2},
                alpha_pattern={"v_proj": 4},
            ),
            seed=2,
        ),
    ]


@pytest.fixture(scope="session")
def engine(storage, cache) -> Iterator[Service]:
    settings = EngineSettings(storage_folder=storage, cache_folder=cache, precision="fp32")
    with serving(settings) as service:
        yield service


@pytest.fixture
def fake() -> Iterator[FakeVllm]:
    """One that belongs to the test alone; its `url` is where it is."""
    fake = FakeVllm(BASE.source)
    with serve(fake.app) as fake.url:
        yield fake


@pytest.fixture
def service(fake, storage, cache) -> Iterator[BridgeService]:
    """A bridge to the fake that belongs to the test alone."""
    with bridging(settings_for(fake.url, storage, cache)) as service:
        yield service


@pytest.fixture(
    scope="session",
    params=[
        "fake",
        pytest.param(
            "real", marks=pytest.mark.skipif(not REAL, reason="TUNESMITH_TEST_VLLM is not set")
        ),
    ],
)
def either(request, storage, cache) -> Iterator[BridgeService]:
    """A bridge to the fake, and one to a real vLLM."""
    server = serve(FakeVllm(BASE.source).app) if request.param == "fake" else real_vllm(REAL)
    with server as url, bridging(settings_for(url, storage, cache)) as service:
        yield service
