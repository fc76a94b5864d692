"""Tuned models run in the format they were trained in, and one base in two formats is two."""

import pytest
import torch
from peft import PeftModel

from core.artifacts.archive import pack
from core.artifacts.manifest import write_manifest
from core.engine import precisions as served
from core.engine.device.runner import BaseLoader, Runner
from core.engine.engine import Engine
from core.engine.metrics import EngineMetrics
from core.engine.policy.scheduler import Scheduler
from core.engine.policy.step import Limits
from core.engine.precisions import ServedPrecisions
from core.engine.text.prompts import PromptReader
from core.models import precision, precision_choice
from core.models.load import load_base
from core.models.precision import dtype_of
from core.models.precision_choice import PrecisionChooser
from core.spec.bundle import BundleRef
from core.spec.generation import GenerationStarted
from core.spec.job import JobSpec
from core.spec.strategy import FullSpec, LoraSpec
from tests.core.engine.asking import PROMPTS, Asker, logprobs_after
from tests.core.engine.bundles import write_bundle
from tests.core.tiny import save_base

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def native_bf16(monkeypatch):
    monkeypatch.setattr(precision, "_cpu_flags", lambda: {"avx512_bf16"})


@pytest.fixture
def calm(tmp_path):
    """A base that loses little in bf16."""
    return save_base(tmp_path / "base", "llama")


def trained_in(store, bundle, number_format):
    """Return the bundle as if it had been trained in a format; None for one that does not tell."""
    spec = JobSpec(base=bundle.base, task=bundle.task, strategy=bundle.strategy, seed=0)
    write_manifest(bundle.folder, spec, number_format)
    archive = bundle.folder.with_suffix(".zip")
    sha256 = pack(bundle.folder, archive)
    key = f"bundles/{sha256[:12]}/final.zip"
    store.write_file(key, archive)
    return BundleRef(key=key, sha256=sha256)


def asker(files, base, asked="auto", **chooser):
    """An engine with a reader that takes formats as the service does."""
    loader = BaseLoader(CPU, files.folder, cache_bytes=2**19, max_adapters=2)
    precisions = ServedPrecisions(
        asked, PrecisionChooser(CPU, measuring=loader.building, **chooser)
    )
    reader = PromptReader(files, loader.cache_tokens, precisions=precisions)
    limits = Limits(8, 64, 48, max_bases=4, max_adapters=2)
    scheduler, runner = Scheduler(limits, loader.pool), Runner(loader.load, limits.max_bases)
    return Asker(
        Engine(scheduler, runner, EngineMetrics(scheduler, runner, loader.adapters)), reader, base
    )


def resident(asker):
    return {base.precision for base in asker.engine.runner.resident_bases()}


def started(answer):
    (event,) = [each for each in answer.items if isinstance(each, GenerationStarted)]
    return event


@pytest.mark.parametrize("number_format", ["bf16", "fp32"])
def test_a_tuned_model_answers_in_the_format_it_was_trained_in(
    tmp_path, store, files, calm, number_format
):
    bundle = write_bundle(tmp_path / "bundle", store, calm, LoraSpec(rank=4, alpha=8))
    adapter = trained_in(store, bundle, number_format)
    asked = asker(files, calm)
    answers = [
        asked.submit(prompt, adapter, given_answer=(50, 60, 70), top_logprobs=0)
        for prompt in PROMPTS
    ]
    asked.finish()
    assert resident(asked) == {number_format}
    model = load_base(calm, dtype_of(number_format), CPU)
    tuned = PeftModel.from_pretrained(model, bundle.folder).eval()
    bound = {"fp32": 1e-4, "bf16": 0.1}[number_format]
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert started(answer).precision == number_format
        assert started(answer).hardware == number_format
        expected_T = logprobs_after(tuned, prompt, [50, 60, 70])[
            torch.arange(3), torch.tensor([50, 60, 70])
        ]
        found_T = torch.tensor([token.logprob for token in answer.tokens()])
        assert (found_T - expected_T).abs().max() < bound


def test_one_base_in_two_formats_is_two_residents_that_run_side_by_side(
    tmp_path, store, files, calm
):
    bundle = write_bundle(tmp_path / "bundle", store, calm, LoraSpec(rank=4, alpha=8))
    fine, coarse = trained_in(store, bundle, "fp32"), trained_in(store, bundle, "bf16")
    asked = asker(files, calm)
    answers = [asked.submit(PROMPTS[1], each, top_logprobs=0) for each in (fine, coarse, None)]
    asked.finish()
    assert [started(answer).precision for answer in answers] == ["fp32", "bf16", "bf16"]
    assert len(asked.engine.runner.resident_bases()) == 2, "the base shares that of its format"
    assert [base for base, _ in asked.reader.precisions.choices()] == [calm]


def test_a_model_that_does_not_tell_runs_as_its_base_does(tmp_path, store, files):
    wild = save_base(tmp_path / "base", "llama", initializer_range=1.0)
    bundle = write_bundle(tmp_path / "bundle", store, wild, LoraSpec(rank=4, alpha=8))
    asked = asker(files, wild)
    assert started(asked.ask(PROMPTS[0], trained_in(store, bundle, None))).precision == "fp32"
    ((_, choice),) = asked.reader.precisions.choices()
    assert (choice.choice, choice.reason) == ("fp32", "measured")


def test_a_format_that_is_set_holds_for_everything_and_nothing_is_measured(
    tmp_path, store, files, calm
):
    bundle = write_bundle(tmp_path / "bundle", store, calm, LoraSpec(rank=4, alpha=8))
    asked = asker(files, calm, asked="bf16")
    assert asked.reader.is_fetched(calm, None)
    for adapter in (trained_in(store, bundle, "fp32"), None):
        assert started(asked.ask(PROMPTS[0], adapter)).precision == "bf16"
    assert resident(asked) == {"bf16"} and asked.reader.precisions.choices() == []


def test_what_the_device_cannot_run_is_served_as_the_base_is(
    tmp_path, store, files, calm, monkeypatch
):
    bundle = write_bundle(tmp_path / "bundle", store, calm, LoraSpec(rank=4, alpha=8))
    on_gpu = trained_in(store, bundle, "fp16")
    assert started(asker(files, calm).ask(PROMPTS[0], on_gpu)).precision == "bf16"
    too_large = asker(files, calm, fits=lambda fp32_bytes: False)
    fine = trained_in(store, bundle, "fp32")
    assert started(too_large.ask(PROMPTS[0], fine)).precision == "bf16"
    monkeypatch.setattr(precision, "_cpu_flags", lambda: {"avx2"})
    native = trained_in(store, bundle, "bf16")
    assert started(asker(files, calm).ask(PROMPTS[0], native)).precision == "fp32"


@pytest.mark.parametrize("strategy", [FullSpec(), LoraSpec(rank=4, alpha=8)])
def test_weights_of_its_own_keep_their_format(tmp_path, store, files, calm, strategy):
    bundle = write_bundle(tmp_path / "bundle", store, calm, strategy)
    asked = asker(files, calm)
    request, _ = asked.read(PROMPTS[0], trained_in(store, bundle, "fp32"))
    assert request.model.base_key.precision == "fp32"
    assert asked.reader.precisions.choices() == [], "no base had to be measured"


def test_a_base_is_fetched_once_it_is_measured(files, calm):
    asked = asker(files, calm)
    assert not asked.reader.is_fetched(calm, None)
    asked.reader.fetch(calm, None)
    assert asked.reader.is_fetched(calm, None)


@pytest.mark.parametrize("want", ["memory", "measurement"])
def test_a_base_that_could_not_be_measured_is_asked_for_again_later(
    tmp_path, files, monkeypatch, want
):
    wild = save_base(tmp_path / "base", "llama", initializer_range=1.0)
    tried, now = [], [1000.0]
    measure = precision_choice.measure_cost

    def broken(base, *_):
        tried.append(base)
        raise RuntimeError("no kernel for that")

    monkeypatch.setattr(served, "monotonic", lambda: now[0])
    with monkeypatch.context() as meanwhile:
        if want == "memory":
            meanwhile.setattr(precision_choice, "free_bytes", lambda device: 1000)
        else:
            meanwhile.setattr(precision_choice, "measure_cost", broken)
        asked = asker(files, wild)
        asked.reader.fetch(wild, None)
        asked.reader.fetch(wild, None)
        assert started(asked.ask(PROMPTS[0])).precision == "bf16"
    assert len(tried) == (want == "measurement"), "not with every request"
    assert precision_choice.measure_cost is measure
    assert asked.reader.is_fetched(wild, None)
    now[0] += served.ASKED_AGAIN_AFTER_SECONDS
    assert not asked.reader.is_fetched(wild, None)
    assert started(asked.ask(PROMPTS[0])).precision == "bf16", "reading a prompt measures nothing"
    asked.reader.fetch(wild, None)
    assert asked.reader.is_fetched(wild, None)
    assert started(asked.ask(PROMPTS[0])).precision == "fp32"
    now[0] += served.ASKED_AGAIN_AFTER_SECONDS
    assert asked.reader.is_fetched(wild, None), "what was measured lasts"


class Building:
    """A lock that says who would wait for it."""

    is_held = False

    def __enter__(self):
        assert not self.is_held, "this waits for another base to be built"

    def __exit__(self, *_):
        pass


def test_requests_to_a_model_trained_in_fp32_build_no_model_and_wait_for_none(
    tmp_path, store, files, calm, monkeypatch
):
    bundle = write_bundle(tmp_path / "bundle", store, calm, LoraSpec(rank=4, alpha=8))
    adapter = trained_in(store, bundle, "fp32")
    building, built = Building(), []
    outline = precision_choice.outline
    loader = BaseLoader(CPU, files.folder, cache_bytes=2**19, max_adapters=2)
    precisions = ServedPrecisions("auto", PrecisionChooser(CPU, measuring=building))
    reader = PromptReader(files, loader.cache_tokens, precisions=precisions)

    def counted(base, *rest):
        built.append(base)
        return outline(base, *rest)

    monkeypatch.setattr(precision_choice, "outline", counted)
    reader.fetch(calm, adapter)
    building.is_held = True
    asked = Asker(None, reader, calm)
    for _ in range(3):
        reader.fetch(calm, adapter)
        request, _ = asked.read(PROMPTS[0], adapter)
        assert request.model.precision == "fp32"
    assert built == [calm]
