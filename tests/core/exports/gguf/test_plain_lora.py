import json
import math

import peft
import torch
from safetensors.torch import load_file

from core.exports.gguf.plain_lora import write_plain_lora
from tests.core.tiny import tiny_model


def test_the_update_is_that_of_peft_with_alpha_over_rank(tmp_path):
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=True,
        rank_pattern={r"layers\.1\..*": 2},
        alpha_pattern={"down_proj": 3},
        target_modules=["q_proj", "down_proj"],
    )
    model = peft.get_peft_model(tiny_model("llama"), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    model.save_pretrained(tmp_path / "peft")
    write_plain_lora(tmp_path / "peft", tmp_path / "plain")

    written = load_file(tmp_path / "plain/adapter_model.safetensors")
    settings = json.loads((tmp_path / "plain/adapter_config.json").read_text())
    assert (settings["use_rslora"], settings["alpha_pattern"], settings["lora_alpha"]) == (
        False,
        {},
        6,
    )
    for name, layer in model.named_modules():
        if isinstance(layer, peft.tuners.lora.Linear):
            a_RI, b_OR = (written[f"{name}.lora_{side}.weight"] for side in "AB")
            update_OI = b_OR @ a_RI * settings["lora_alpha"] / b_OR.shape[1]
            torch.testing.assert_close(update_OI, layer.get_delta_weight("default"))
    scale = 3 / math.sqrt(2) / (6 / 2)
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    before = load_file(tmp_path / "peft/adapter_model.safetensors")[name]
    torch.testing.assert_close(written[name], before * scale)
