"""What all contenders of the serving benchmark answer: one base, its adapters and the prompts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from bench.data import SMALL, ModelSize, build, size_of
from core.artifacts.manifest import ADAPTER_FILE, write_manifest
from core.models.load import load_tokenizer
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.strategy import LoraSpec
from core.strategies.attach import attach

SEED = 20261124
PROMPT_TOKENS = 64
NEW_TOKENS = 48
RANK = 16
ALPHA = 2.0 * RANK
FIRST_DRAWN_TOKEN = 32
"""Prompts are drawn from the tokens after the control tokens."""


@dataclass(frozen=True)
class Setting:
    """The same requests for all contenders, with one length of prompts and of answers."""

    base: BaseModelSpec
    adapters: Sequence[Path]
    prompts: Sequence[tuple[int, ...]]
    size: ModelSize = SMALL


def make_setting(folder: Path, requests: int, base_folder: Path | None = None) -> Setting:
    """Write one adapter per request, and the base unless given; draw the prompts."""
    size = size_of(base_folder) if base_folder else SMALL
    source = base_folder.resolve() if base_folder else build(folder, 8, SEED).base_folder
    base = BaseModelSpec(id=f"benchmark-{size.name.lower()}", source=str(source))
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32)
    adapters = write_adapters(model, base, folder, requests)
    draw = torch.Generator().manual_seed(SEED)
    shape = requests, PROMPT_TOKENS
    prompts = torch.randint(FIRST_DRAWN_TOKEN, size.vocabulary, shape, generator=draw)
    return Setting(base, adapters, [tuple(prompt) for prompt in prompts.tolist()], size)


def write_adapters(
    model: PreTrainedModel, base: BaseModelSpec, folder: Path, number: int
) -> list[Path]:
    """Write different bundles with non-zero updates, in the format of training; return them."""
    tokenizer = load_tokenizer(base)
    folders = [folder / f"adapter-{each}" for each in range(number)]
    for each in folders:
        _write_adapter(model, base, tokenizer, each)
    return folders


def _write_adapter(
    model: PreTrainedModel, base: BaseModelSpec, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    strategy = LoraSpec(rank=RANK, alpha=ALPHA)
    adapted = attach(model, strategy, tokenizer, prepack=False)
    adapted.remove()
    for parameter in adapted.parameters:
        parameter.data += 0.02 * torch.randn_like(parameter)
    folder.mkdir()
    assert adapted.config is not None
    adapted.config.save_pretrained(folder)
    save_file(adapted.state(), folder / ADAPTER_FILE)
    write_manifest(folder, JobSpec(base=base, strategy=strategy, seed=SEED))


def greedy(new_tokens: int, output_logits: bool = False) -> GenerationConfig:
    """Return transformers' settings for greedy answers of this length."""
    return GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=output_logits,
        return_dict_in_generate=output_logits,
    )


def weight_bytes(setting: Setting) -> tuple[int, int]:
    """Return the bytes of the base's matrices that multiply each token, and of an adapter."""
    config = json.loads((setting.adapters[0] / "adapter_config.json").read_text())
    size = (setting.adapters[0] / "adapter_model.safetensors").stat().st_size
    if config["r"] != RANK:
        raise SystemExit("The rank of the adapters differs from the table.")
    return int(4 * setting.size.matmul_parameters(labelled_share=1.0)), size
