"""The engine labels texts over HTTP, beside its answers."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from core.engine_client import EngineClient
from core.errors import InvalidRequest
from core.spec.bundle import BundleRef
from core.spec.classification import ClassificationRequest
from core.spec.engine_calls import CLASSIFY
from core.spec.objective import ClassificationSpec
from core.spec.strategy import LoraSpec
from core.storage.open import open_store
from tests.core.engine.bundles import write_bundle
from tests.leaving import leave_when
from tests.worker.serving import (
    BASE,
    TIMEOUT_SECONDS,
    Gate,
    Service,
    serving,
    text_of,
    wait_until,
)
from worker.engine.settings import EngineSettings


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> EngineSettings:
    return EngineSettings(
        storage_folder=tmp_path_factory.mktemp("storage"),
        cache_folder=tmp_path_factory.mktemp("cache"),
        precision="fp32",
        max_batch=4,
        max_waiting=4,
    )


@pytest.fixture(scope="module")
def classifier(settings, tmp_path_factory) -> dict:
    """A classifier with two labels on the same base, in the same storage."""
    folder = tmp_path_factory.mktemp("classifier") / "bundle"
    objective = ClassificationSpec(labels=("spam", "ham"))
    store = open_store(settings.storage_folder)
    strategy = LoraSpec(rank=2, target_modules=("q_proj",))
    bundle = write_bundle(folder, store, BASE, strategy, "classification", objective)
    return bundle.ref.model_dump()


@pytest.fixture(scope="module")
def shared(settings) -> Iterator[Service]:
    with serving(settings) as service:
        yield service


@pytest.fixture
def service(shared) -> Iterator[Service]:
    """The shared service, which every test must leave idle."""
    yield shared
    wait_until(shared.is_idle)


def test_texts_are_scored_beside_the_answers_of_a_generator(service, classifier):
    asked = {"id": "c", "base": BASE.model_dump(), "adapter": classifier, "texts": ["Hello", "Hi"]}
    answer = service.client.post("/classify", json=asked).json()
    alone, precision = answer["scores"], answer["precision"]
    assert precision == "fp32"
    assert [set(each) for each in alone] == [{"spam", "ham"}] * 2
    assert [sum(each.values()) for each in alone] == pytest.approx([1, 1])
    thread = threading.Thread(target=lambda: text_of(service.generate()))
    thread.start()
    assert service.client.post("/classify", json=asked).json()["scores"] == alone
    thread.join(TIMEOUT_SECONDS)


def test_each_route_refuses_the_models_of_the_other(service, classifier):
    refused = service.generate(adapter=classifier)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_a_generator")
    asked = {"id": "c", "base": BASE.model_dump(), "texts": ["Hello"]}
    refused = service.client.post("/classify", json=asked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_a_classifier")


def test_a_client_that_leaves_takes_its_texts_along(service, classifier, monkeypatch):
    gate = Gate()
    runner = service.engine.runner
    monkeypatch.setattr(runner, "run", gate.around(runner.run))
    asked = {"id": "c", "base": BASE.model_dump(), "adapter": classifier, "texts": ["Hello"] * 9}
    leave_when(lambda: service.engine._tickets, service.client, "/classify", asked)
    wait_until(lambda: not service.engine._tickets)
    gate.opened.set()


def test_the_client_of_the_api_gets_scores_and_refusals(settings, classifier):
    request = ClassificationRequest(
        id="c", base=BASE, adapter=BundleRef.model_validate(classifier), texts=("Hello",)
    )

    async def ask(url: str) -> None:
        client = EngineClient()
        answer = await client.ask(url, CLASSIFY, request)
        assert answer.scores[0].keys() == {"spam", "ham"}
        with pytest.raises(InvalidRequest, match="labels"):
            await client.ask(url, CLASSIFY, request.model_copy(update={"adapter": None}))
        await client.close()

    with serving(settings) as service:
        asyncio.run(ask(str(service.client.base_url)))
