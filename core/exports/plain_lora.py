"""Rewrites a LoRA adapter for programs that know one scale only. Its updates stay the same.

PEFT may scale a layer otherwise: rsLoRA divides by the root of the rank, and patterns give layers a
rank or an alpha of their own. The difference is multiplied into B.
"""

# O outputs, R rank

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file

from core.spec.adapter_file import CONFIG_FILE, WEIGHTS_FILE

_B = ".lora_B.weight"


def write_for_llama_cpp(adapter: Path, out: Path) -> None:
    """Write the adapter of a PEFT folder to `out`, scaled by alpha / the rank of each layer."""
    config = _config(adapter)
    _write(adapter, out, config, lambda rank: config.lora_alpha / rank, {"alpha_pattern": {}})


def write_for_vllm(adapter: Path, out: Path) -> None:
    """Write the adapter of a PEFT folder to `out`, with the same scale for all layers.

    vLLM before 0.32 ignores patterns and scales every layer by alpha / r. An alpha for each rank
    lets PEFT and later versions do the same.
    """
    config = _config(adapter)
    scale = config.lora_alpha / config.r
    alphas = {pattern: scale * rank for pattern, rank in config.rank_pattern.items()}
    _write(adapter, out, config, lambda rank: scale, {"alpha_pattern": alphas})


def has_patterns(adapter: Path) -> bool:
    config = _config(adapter)
    return bool(config.rank_pattern or config.alpha_pattern)


def _config(adapter: Path) -> peft.LoraConfig:
    return peft.LoraConfig.from_pretrained(str(adapter))


def _write(
    adapter: Path,
    out: Path,
    config: peft.LoraConfig,
    scale_of: Callable[[int], float],
    changes: Mapping[str, Any],
) -> None:
    """Write B in fp32, divided by what the reader's `scale_of` a rank has in excess."""
    weights = {name: weight.float() for name, weight in load_file(adapter / WEIGHTS_FILE).items()}
    for name, b_OR in weights.items():
        if name.endswith(_B):
            module = name.removeprefix("base_model.model.").removesuffix(_B)
            rank = b_OR.shape[1]
            weights[name] = b_OR * (_scaling(config, module, rank) / scale_of(rank))
    settings = json.loads((adapter / CONFIG_FILE).read_text(encoding="utf-8"))
    settings |= {"use_rslora": False, **changes}
    out.mkdir(exist_ok=True)
    (out / CONFIG_FILE).write_text(json.dumps(settings, indent=2), encoding="utf-8")
    save_file(weights, out / WEIGHTS_FILE)


def _scaling(config: peft.LoraConfig, module: str, rank: int) -> float:
    key = get_pattern_key(config.alpha_pattern.keys(), module)
    alpha: float = config.alpha_pattern.get(key, config.lora_alpha)
    return alpha / (math.sqrt(rank) if config.use_rslora else rank)
