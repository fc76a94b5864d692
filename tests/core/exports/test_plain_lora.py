"""Adapters for programs with one scale have the updates that PEFT computes."""

import json
import math

import peft
import pytest
import torch
from safetensors.torch import load_file

from core.exports.plain_lora import has_patterns, write_for_llama_cpp, write_for_vllm
from tests.core.tiny import tiny_model

LAYER = "base_model.model.model.layers.1.mlp.down_proj"


@pytest.fixture(params=[True, False], ids=["rslora", "lora"])
def model(request, tmp_path):
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=request.param,
        rank_pattern={r"layers\.1\..*": 2},
        alpha_pattern={"down_proj": 3},
        target_modules=["q_proj", "down_proj"],
    )
    model = peft.get_peft_model(tiny_model("llama"), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    model.save_pretrained(tmp_path / "peft")
    return model


def updates(model):
    """The updates of all layers, as PEFT computes them."""
    return {
        name: layer.get_delta_weight("default")
        for name, layer in model.named_modules()
        if isinstance(layer, peft.tuners.lora.Linear)
    }


def read(folder):
    settings = json.loads((folder / "adapter_config.json").read_text())
    return settings, load_file(folder / "adapter_model.safetensors")


def test_llama_cpp_scales_by_alpha_over_the_rank_of_a_layer(model, tmp_path):
    write_for_llama_cpp(tmp_path / "peft", tmp_path / "plain")
    settings, written = read(tmp_path / "plain")
    assert (settings["use_rslora"], settings["alpha_pattern"]) == (False, {})
    for name, update_OI in updates(model).items():
        a_RI, b_OR = (written[f"{name}.lora_{side}.weight"] for side in "AB")
        found_OI = b_OR @ a_RI * settings["lora_alpha"] / b_OR.shape[1]
        torch.testing.assert_close(found_OI, update_OI)


def test_vllm_scales_all_layers_alike_whether_it_knows_patterns_or_not(model, tmp_path):
    write_for_vllm(tmp_path / "peft", tmp_path / "plain")
    settings, written = read(tmp_path / "plain")
    scale = settings["lora_alpha"] / settings["r"]  # of vLLM before 0.32
    for name, update_OI in updates(model).items():
        a_RI, b_OR = (written[f"{name}.lora_{side}.weight"] for side in "AB")
        torch.testing.assert_close(b_OR @ a_RI * scale, update_OI)
    loaded = peft.PeftModel.from_pretrained(tiny_model("llama"), tmp_path / "plain")
    for name, update_OI in updates(loaded).items():  # by the patterns
        torch.testing.assert_close(update_OI, updates(model)[name])


def test_the_factor_of_a_layer(model, tmp_path):
    write_for_llama_cpp(tmp_path / "peft", tmp_path / "plain")
    (_, before), (_, after) = read(tmp_path / "peft"), read(tmp_path / "plain")
    root = math.sqrt(2) if model.peft_config["default"].use_rslora else 2
    factor = 3 / root / (6 / 2)
    name = f"{LAYER}.lora_B.weight"
    torch.testing.assert_close(after[name], before[name] * factor)
    assert has_patterns(tmp_path / "peft")
