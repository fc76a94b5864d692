import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.serving import engine_for, serve
from bench.serving_check import RecordedAnswer, record
from bench.serving_setting import (
    FIRST_DRAWN_TOKEN,
    NEW_TOKENS,
    PROMPT_TOKENS,
    RANK,
    Setting,
    make_setting,
)
from bench.serving_table import Turn, markdown
from tests.core.tiny import save_base


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A tiny base, and an adapter of which only rank and size count."""
    base = save_base(tmp_path_factory.mktemp("base"))
    adapter = tmp_path_factory.mktemp("adapter")
    (adapter / "adapter_config.json").write_text(json.dumps({"r": RANK}))
    save_file({"weight": torch.zeros(RANK, 4)}, adapter / "adapter_model.safetensors")
    prompts = torch.randint(10, 200, (3, PROMPT_TOKENS)).tolist()
    return Setting(base, [adapter], [tuple(prompt) for prompt in prompts])


def test_every_round_reads_its_prompts(setting: Setting) -> None:
    """What a peer has to compute in every round must not come out of our cache."""
    engine = engine_for(setting)
    for _ in range(2):
        recorded: list[RecordedAnswer] = []
        serve(engine, setting, 0, partial(record, recorded))
        assert [len(answer.tokens) for answer in recorded] == [NEW_TOKENS] * 3
    assert engine.scheduler.prefix_cache_hits == 0


def test_a_given_base_is_served_with_its_own_adapters(tmp_path: Path) -> None:
    base = save_base(tmp_path / "llama", "llama")
    setting = make_setting(tmp_path, 2, Path(base.source))
    config = json.loads((Path(base.source) / "config.json").read_text())
    assert setting.size.vocabulary == config["vocab_size"]
    assert setting.size.name == "llama"
    tokens = [token for prompt in setting.prompts for token in prompt]
    assert min(tokens) >= FIRST_DRAWN_TOKEN and max(tokens) < config["vocab_size"]
    texts = []
    for adapters in (0, 2):
        recorded: list[RecordedAnswer] = []
        serve(engine_for(setting), setting, adapters, partial(record, recorded))
        assert [len(answer.tokens) for answer in recorded] == [NEW_TOKENS] * 2
        texts.append([answer.tokens for answer in recorded])
    assert texts[0] != texts[1]


def test_a_base_that_is_no_llama_is_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path / "bert", "bert")
    with pytest.raises(SystemExit, match="is a bert; benchmarks take a Llama"):
        make_setting(tmp_path, 2, Path(base.source))


def test_a_refusal_ends_the_benchmark(setting: Setting) -> None:
    """An engine that refuses everything would win every race."""
    (setting.adapters[0] / "manifest.json").write_text("damaged")
    with pytest.raises(SystemExit, match="rejected"):
        serve(engine_for(setting), setting, 1)


def test_peers_are_held_against_ours_with_the_same_adapters(setting: Setting) -> None:
    speeds = {
        "Tunesmith, base": 100.0,
        "Tunesmith, 8 adapters": 60.0,
        "Tunesmith, 32 adapters": 40.0,
        "transformers generate, base": 50.0,
        "PEFT generate, 32 adapters": 10.0,
        "llama.cpp server, base": 80.0,
        "llama.cpp server, 8 adapters": 20.0,
    }
    report = markdown(setting, {name: [Turn(speed, 0.02)] for name, speed in speeds.items()})
    assert "| Tunesmith, base | 100 | 100 | 100 | 2% |" in report
    for line in (
        "Tunesmith, base is **2.00 times** transformers generate, base.",
        "Tunesmith, 32 adapters is **4.00 times** PEFT generate, 32 adapters.",
        "Tunesmith, base is **1.25 times** llama.cpp server, base.",
        "Tunesmith, 8 adapters is **3.00 times** llama.cpp server, 8 adapters.",
    ):
        assert f"- {line}" in report
