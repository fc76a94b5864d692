"""Models of every task that have just been trained answer held-out rows through a real engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.inference.targets import Target
from core.spec.bundle import BundleRef
from core.spec.events import RunFinished
from core.spec.ids import ModelId
from core.spec.parity import Parity
from core.spec.training import EvaluationSpec
from core.spec.verdict import Verdict
from core.storage.open import open_store
from tests.worker.answering.in_memory import background_at
from tests.worker.finished import finish
from tests.worker.one_engine import OneEngine
from tests.worker.serving import Service, serving
from worker.engine.settings import EngineSettings
from worker.verdict.subject import Subject
from worker.verdict.verdict import VerdictCheck

EVALUATION = EvaluationSpec(split=0.4, samples=8, prompts=("What is it?",))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> EngineSettings:
    return EngineSettings(
        storage_folder=tmp_path_factory.mktemp("storage"),
        cache_folder=tmp_path_factory.mktemp("cache"),
        precision="fp32",
        kv_cache_mib=16,
        max_bases=2,
    )


@pytest.fixture(scope="module")
def service(settings: EngineSettings) -> Iterator[Service]:
    with serving(settings) as service:
        yield service


@pytest.fixture
def verdict_on(settings: EngineSettings, service: Service, tmp_path: Path) -> Any:
    def judge(name: str) -> Verdict:
        store = open_store(settings.storage_folder)
        done = finish(tmp_path, store, name, evaluation=EVALUATION)
        last = done.events[-1]
        assert isinstance(last, RunFinished) and last.held_out is not None
        assert len(last.held_out.questions) > 1
        base = Target(ModelId(done.spec.base.id), done.spec.base, None)
        bundle: BundleRef = done.candidate.bundle
        tuned = Target(ModelId("ft:tuned"), done.spec.base, bundle)
        subject = Subject("default", done.spec, last.held_out, base, tuned, [(3, tuned)])
        engine = OneEngine(str(service.client.base_url))
        check = VerdictCheck(lambda: background_at(engine), lambda target: True, lambda: False, 60)
        return check(subject, Parity(status="passed"))

    return judge


@pytest.mark.parametrize("name", ["bart, full", "t5", "prompt and completion"])
def test_base_and_model_write_answers(verdict_on: Any, name: str) -> None:
    found = verdict_on(name)
    assert found.missing == () and found.held_out.base is not None
    assert {"exact_match", "rouge_l"} <= {metric.name for metric in found.metrics}
    assert all(s.base.error is None and s.tuned.error is None for s in found.samples)
    (prompt,) = found.prompts
    assert [answer.step for answer in prompt.answers] == [None, 3, None]
    assert [answer.answer.error for answer in prompt.answers] == [None] * 3


@pytest.mark.parametrize("name", ["encoder, one label", "decoder, several labels"])
def test_classifier_labels_texts(verdict_on: Any, name: str) -> None:
    found = verdict_on(name)
    assert found.compared_with.startswith("always ")
    assert {metric.name for metric in found.metrics} == {"accuracy", "macro_f1"}
    assert all(sample.tuned.error is None for sample in found.samples)
    assert (found.confusion is None) == ("several" in name)
    (prompt,) = found.prompts
    assert [answer.step for answer in prompt.answers] == [3, None]
    assert all(answer.answer.error is None for answer in prompt.answers)
    (missing,) = found.missing
    assert "head of a classifier is new" in missing
