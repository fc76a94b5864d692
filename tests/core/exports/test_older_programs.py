"""Configs of exports for programs with transformers 4, which read the same from them as we do."""

import json

import pytest
from transformers import AutoConfig, AutoTokenizer

from core.exports.older_programs import add_older_names, use_older_class
from tests.core.tiny import DECODERS, ENCODER_DECODERS, ENCODERS, save_base

FAMILIES = (*DECODERS, *ENCODERS, *ENCODER_DECODERS)
WITHOUT_ROTATION = {"gpt2", "bert", "t5", "bart"}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_5_reads_what_it_wrote(tmp_path, family):
    save_base(tmp_path, family)
    before = AutoConfig.from_pretrained(tmp_path).to_dict()
    add_older_names(tmp_path)
    config, after = config_of(tmp_path), AutoConfig.from_pretrained(tmp_path).to_dict()
    assert {name: after[name] for name in before} == before
    thetas = {name for name in config if "theta" in name or "base_freq" in name}
    assert bool(thetas) == (family not in WITHOUT_ROTATION), thetas


def test_the_frequency_is_where_older_programs_look(tmp_path):
    save_base(tmp_path, "llama", rope_parameters={"rope_theta": 1e5, "rope_type": "default"})
    add_older_names(tmp_path)
    config = config_of(tmp_path)
    assert config["rope_theta"] == 1e5 and "rope_scaling" not in config


YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("family", "parameters"), [("llama", LLAMA_3), ("qwen2", YARN), ("phi3", LONG)]
)
def test_a_stretched_context_is_where_older_programs_look(tmp_path, family, parameters):
    save_base(tmp_path, family, rope_parameters=parameters)
    before = AutoConfig.from_pretrained(tmp_path).to_dict()
    add_older_names(tmp_path)
    config = config_of(tmp_path)
    assert config["rope_theta"] == parameters["rope_theta"]
    scaling = config["rope_scaling"]
    if family == "phi3":
        assert scaling.keys() == {"type", "short_factor", "long_factor"}
    else:
        assert scaling == {k: v for k, v in before["rope_parameters"].items() if k != "rope_theta"}
    after = AutoConfig.from_pretrained(tmp_path).to_dict()
    after["rope_parameters"].pop("type", None)  # the older name of rope_type
    assert {name: after[name] for name in before} == before


def test_every_kind_of_layer_keeps_its_frequency(tmp_path):
    kinds = {"full_attention": 1e6, "sliding_attention": 1e4}
    parameters = {
        kind: {"rope_theta": theta, "rope_type": "default"} for kind, theta in kinds.items()
    }
    save_base(tmp_path, "gemma3_text", rope_parameters=parameters)
    add_older_names(tmp_path)
    config = config_of(tmp_path)
    assert (config["rope_theta"], config["rope_local_base_freq"]) == (1e6, 1e4)


def test_the_tokenizer_has_a_class_that_all_versions_know(tmp_path):
    save_base(tmp_path, "llama")
    before = AutoTokenizer.from_pretrained(tmp_path)
    before.add_special_tokens({"extra_special_tokens": ["<|extra|>"]})
    before.save_pretrained(tmp_path)
    use_older_class(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(config.get("extra_special_tokens"), list)
    after = AutoTokenizer.from_pretrained(tmp_path)
    text = "Hello <|im_start|>user<|extra|>"
    assert after(text) == before(text)
    assert set(after.all_special_tokens) == set(before.all_special_tokens)
    assert after.chat_template == before.chat_template
