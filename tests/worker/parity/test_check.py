"""Models that have just been trained are asked through a real engine, over HTTP."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from pydantic import SecretStr
from safetensors.torch import load_file, save_file

from core.artifacts.archive import unpack
from core.artifacts.manifest import ADAPTER_FILE
from core.catalog.objectives import OBJECTIVES
from core.catalog.strategies import STRATEGIES
from core.spec.generation import ChatPrompt
from core.spec.parity import Parity, ReplayedRow
from core.storage.open import open_store
from tests.worker.finished import JOBS, Finished, finish
from tests.worker.serving import Service, serving
from worker.engine.settings import EngineSettings
from worker.engine_client.find import EngineAddress
from worker.parity.check import ParityCheck

ALLOWED_NATS = 1e-3


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> EngineSettings:
    return EngineSettings(
        storage_folder=tmp_path_factory.mktemp("storage"),
        cache_folder=tmp_path_factory.mktemp("cache"),
        precision="fp32",
        kv_cache_mib=16,
        max_bases=2,
    )


@pytest.fixture(scope="module")
def service(settings) -> Iterator[Service]:
    with serving(settings) as service:
        yield service


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory) -> Callable[..., Finished]:
    """Train what is named, once."""
    done: dict[tuple, Finished] = {}
    store = open_store(settings.storage_folder)

    def train(name: str, **options) -> Finished:
        key = name, tuple(options.items())
        if key not in done:
            done[key] = finish(tmp_path_factory.mktemp("run"), store, name, **options)
        return done[key]

    return train


def check(service: Service, finished: Finished) -> Parity:
    address = EngineAddress(str(service.client.base_url))
    return ParityCheck(lambda model: address, lambda: False)(finished.reference, finished.candidate)


def check_with(settings: EngineSettings, finished: Finished) -> Parity:
    with serving(settings) as other:
        return check(other, finished)


@pytest.fixture
def tampered(settings, tmp_path) -> Callable[..., EngineSettings]:
    """Give an engine whose disk holds the bundle already, changed behind its back."""

    def tamper(finished: Finished, change: Callable[[Path], None]) -> EngineSettings:
        bundle = finished.candidate.bundle
        archive, folder = tmp_path / "bundle.zip", tmp_path / "engine" / bundle.sha256
        open_store(settings.storage_folder).fetch(bundle.key, archive)
        unpack(archive, folder)
        change(folder)
        return settings.model_copy(update={"cache_folder": folder.parent})

    return tamper


def test_every_strategy_and_objective_is_checked() -> None:
    assert {case.strategy.type for case in JOBS.values()} == set(STRATEGIES)
    assert {case.objective.type for case in JOBS.values()} == set(OBJECTIVES)


DAILY = {"lora", "qlora", "prompt", "full", "dpo", "t5"}
"""The end-to-end tests check models of all strategies and objectives through a whole service."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in DAILY else pytest.mark.slow) for name in JOBS],
)
def test_every_kind_of_model_passes_in_fp32(service, finished, name: str) -> None:
    parity = check(service, finished(name))
    assert parity.status == "passed", parity.reason
    assert parity.rows == 8 and parity.tokens >= 24
    assert parity.max_difference_nats is not None
    assert parity.max_difference_nats < ALLOWED_NATS
    assert (parity.training_precision, parity.engine_precision) == ("fp32", "fp32")
    assert parity.token_rows == 0
    assert (parity.quantization_gap_nats is not None) == (name == "qlora")


def test_conversations_are_asked_as_messages_with_their_tools(finished) -> None:
    rows = finished("lora").reference.rows
    prompts = [row.prompt for row in rows if isinstance(row, ReplayedRow)]
    assert all(isinstance(prompt, ChatPrompt) for prompt in prompts)
    assert [bool(prompt.tools) for prompt in prompts] == [False, True] * 4
    arguments = prompts[1].messages[1]["tool_calls"][0]["function"]["arguments"]
    assert arguments == '{"word": "cat"}', "as clients write it"


def test_quantized_trainer_is_another_model_and_the_gap_is_told(finished) -> None:
    assert finished("qlora").reference.quantization_gap_nats > 10 * ALLOWED_NATS
    assert finished("lora").reference.quantization_gap_nats is None


def test_another_chat_template_is_noticed_and_the_token_named(finished, tampered) -> None:
    def change(folder: Path) -> None:
        template = folder / "chat_template.jinja"
        template.write_text(template.read_text().replace("{{ m['role'] }}\n", "{{ m['role'] }} "))

    job = finished("lora")
    parity = check_with(tampered(job, change), job)
    assert (parity.status, parity.differs) == ("failed", "template")
    assert parity.reason is not None and "the prompt of line 1" in parity.reason
    assert "differ from token 7 on" in parity.reason, "after <|im_start|> and six letters"


def test_missing_chat_template_is_a_difference_of_the_template(finished, tampered) -> None:
    job = finished("lora")
    engine = tampered(job, lambda folder: (folder / "chat_template.jinja").unlink())
    parity = check_with(engine, job)
    assert (parity.status, parity.differs) == ("failed", "template")
    assert parity.reason is not None and "no chat template" in parity.reason


@pytest.mark.parametrize("module", ["v_proj", "down_proj"])
def test_ignored_module_is_named(finished, tampered, module: str) -> None:
    def change(folder: Path) -> None:
        zero(folder, lambda name: module in name)

    job = finished("lora")
    parity = check_with(tampered(job, change), job)
    assert (parity.status, parity.differs) == ("failed", "module")
    assert parity.reason is not None
    assert parity.reason.startswith(f"The engine ignores {module} (2 trained modules)")


def test_ignored_adapter_is_named_as_a_whole(finished, tampered) -> None:
    job = finished("lora")
    parity = check_with(tampered(job, lambda folder: zero(folder, lambda name: True)), job)
    assert (parity.status, parity.differs) == ("failed", "module")
    assert parity.reason is not None and "ignores the whole adapter" in parity.reason


def test_layer_that_is_lost_alone_is_noticed(finished, tampered) -> None:
    job = finished("lora")
    engine = tampered(job, lambda folder: zero(folder, lambda name: "layers.1.self_attn" in name))
    parity = check_with(engine, job)
    assert (parity.status, parity.differs) == ("failed", "adapter")
    assert parity.max_difference_nats is not None
    assert parity.max_difference_nats > ALLOWED_NATS


@pytest.mark.parametrize("name", ["t5", "encoder, one label"])
def test_other_tasks_fail_as_well(finished, tampered, name: str) -> None:
    job = finished(name)
    parity = check_with(tampered(job, lambda folder: zero(folder, lambda name: True)), job)
    assert parity.status == "failed"
    assert parity.differs == "module" and parity.reason is not None
    ignored = "the whole adapter" if name == "t5" else "all but classifier"
    assert parity.reason.startswith(f"The engine ignores {ignored}"), "its head is trained, too"


def test_damaged_adapter_is_refused_by_the_engine_and_fails(finished, tampered) -> None:
    job = finished("lora")
    parity = check_with(tampered(job, lambda folder: (folder / ADAPTER_FILE).unlink()), job)
    assert (parity.status, parity.differs) == ("failed", "module")


def test_coarser_engine_is_compared_with_the_bounds_of_its_format(finished, settings) -> None:
    engine = settings.model_copy(update={"precision": "bf16"})
    with serving(engine) as coarse:
        parity = check(coarse, finished("lora"))
        assert parity.status == "passed", parity.reason
        assert parity.max_difference_nats is not None
        assert parity.max_difference_nats > ALLOWED_NATS
        assert parity.mean_rounding_nats is not None and parity.mean_rounding_nats > ALLOWED_NATS
        sharp = finished("lora", initializer_range=0.8)
        parity = check(coarse, sharp)
    assert (parity.status, parity.differs) == ("failed", "precision")
    assert parity.reason is not None
    assert parity.reason.startswith(
        "The model was trained in fp32 and is served in bf16: bf16 arithmetic"
    )


def test_16_bits_pass_where_they_were_trained(finished, settings) -> None:
    engine = settings.model_copy(update={"precision": "bf16"})
    parity = check_with(engine, finished("lora", precision="bf16"))
    assert parity.status == "passed"
    assert (parity.training_precision, parity.engine_precision) == ("bf16", "bf16")
    assert parity.mean_difference_nats is not None and parity.mean_difference_nats < 0.02


def test_engine_without_the_bundle_leaves_it_unchecked(finished, settings, tmp_path) -> None:
    elsewhere = settings.model_copy(
        update={"storage_folder": tmp_path / "other", "cache_folder": tmp_path / "cache"}
    )
    (tmp_path / "other").mkdir()
    parity = check_with(elsewhere, finished("lora"))
    assert parity.status == "unchecked"
    assert parity.reason is not None and "not in storage" in parity.reason


def test_engine_that_wants_a_key_gets_it(finished, settings) -> None:
    locked = settings.model_copy(update={"key": SecretStr("s3cret")})
    with serving(locked) as service:
        assert check(service, finished("lora")).status == "unchecked"
        address = EngineAddress(str(service.client.base_url), SecretStr("s3cret"))
        job = finished("lora")
        parity = ParityCheck(lambda model: address, lambda: False)(job.reference, job.candidate)
    assert parity.status == "passed"


def zero(folder: Path, is_lost: Callable[[str], bool]) -> None:
    """Take the effect of some low-rank updates out of an unpacked bundle."""
    path = folder / ADAPTER_FILE
    state = load_file(path)
    lost = [name for name in state if "lora_B" in name and is_lost(name)]
    assert lost
    for name in lost:
        state[name] = torch.zeros_like(state[name])
    temporary = path.with_suffix(".partial")
    save_file(state, temporary)
    shutil.move(temporary, path)
