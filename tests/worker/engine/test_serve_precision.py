"""With `auto` every answer tells its precision, and the engine what it found and keeps."""

import pytest

from core.models import precision
from core.spec.precision import PrecisionCost
from tests.worker.serving import BASE, events, serving
from worker.engine.serve import build_engine, precision_of, report
from worker.engine.settings import EngineSettings


@pytest.fixture
def settings(tmp_path, monkeypatch) -> EngineSettings:
    monkeypatch.setattr(precision, "_cpu_flags", lambda: {"avx512_bf16"})
    return EngineSettings(
        storage_folder=tmp_path / "storage",
        cache_folder=tmp_path / "cache",
        precision_folder=tmp_path / "kept",
        kv_cache_mib=16,
    )


def test_an_engine_in_auto_tells_the_precision_of_each_answer(settings):
    assert precision_of(settings) is None
    with serving(settings) as service:
        told = service.client.get("/healthz").json()["report"]
        assert (told["precision"], told["base_precisions"]) == (None, [])
        started = events(service.generate())[0]
        assert (started["type"], started["precision"]) == ("started", "bf16")
        assert started["hardware"].endswith("bf16")
        told = service.client.get("/healthz").json()["report"]
        assert (told["precision"], told["base_precisions"]) == (None, ["bf16"])
    (kept,) = settings.measured_in.iterdir()
    assert not PrecisionCost.model_validate_json(kept.read_bytes()).is_high


def test_an_engine_reports_what_a_base_costs_in_16_bits(settings):
    engine, reader = build_engine(settings)
    assert report(engine, settings, reader.precisions).precisions == ()
    reader.fetch(BASE, None)
    (found,) = report(engine, settings, reader.precisions).precisions
    assert (found.base, found.precision.choice, found.precision.reason) == (
        BASE,
        "bf16",
        "measured",
    )
    assert 0 < found.precision.cost.kl_nats < 1e-3


def test_a_precision_that_is_set_is_that_of_all_answers(settings):
    set_ = settings.model_copy(update={"precision": "fp32"})
    engine, reader = build_engine(set_)
    assert precision_of(set_) == "fp32" and reader.is_fetched(BASE, None)
    assert report(engine, set_, reader.precisions).precisions == ()


def test_measurements_are_kept_in_the_cache_folder_unless_a_folder_is_named(settings, monkeypatch):
    folders = {"storage_folder": settings.storage_folder, "cache_folder": settings.cache_folder}
    assert EngineSettings(**folders).measured_in == settings.cache_folder / "precision"
    monkeypatch.setenv("TUNESMITH_PRECISION_FOLDER", "/shared/kept")
    assert str(EngineSettings(**folders).measured_in) == "/shared/kept"
