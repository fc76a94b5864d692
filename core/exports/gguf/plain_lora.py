"""Rewrites a LoRA adapter for llama.cpp, which scales every update by alpha / rank.

PEFT may scale otherwise: rsLoRA divides by the root of the rank, `alpha_pattern` has an alpha of
its own for some modules. The difference is multiplied into B, so that the update is the same.
"""

# O outputs, R rank

import json
import math
from pathlib import Path

import peft
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_B = ".lora_B.weight"


def write_plain_lora(adapter: Path, out: Path) -> None:
    """Write the adapter of a PEFT folder to `out`, in fp32, with one alpha and plain scaling."""
    config = peft.LoraConfig.from_pretrained(str(adapter))
    weights = {name: weight.float() for name, weight in load_file(adapter / WEIGHTS).items()}
    for name, b_OR in weights.items():
        if name.endswith(_B):
            module = name.removeprefix("base_model.model.").removesuffix(_B)
            rank = b_OR.shape[1]
            weights[name] = b_OR * (_scaling(config, module, rank) * rank / config.lora_alpha)
    settings = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    settings |= {"use_rslora": False, "alpha_pattern": {}}
    out.mkdir()
    (out / CONFIG).write_text(json.dumps(settings), encoding="utf-8")
    save_file(weights, out / WEIGHTS)


def _scaling(config: peft.LoraConfig, module: str, rank: int) -> float:
    key = get_pattern_key(config.alpha_pattern.keys(), module)
    alpha: float = config.alpha_pattern.get(key, config.lora_alpha)
    return alpha / (math.sqrt(rank) if config.use_rslora else rank)
