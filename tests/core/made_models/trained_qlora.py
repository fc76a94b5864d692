"""An adapter that PEFT trains on a base that bitsandbytes has quantized to four bits."""

import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from core.spec.base_model import BaseModelSpec

CONFIG = {
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "v_proj", "down_proj"],
    "rank_pattern": {"down_proj": 6},
    "alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 16},
    "modules_to_save": ["lm_head"],
    "task_type": "CAUSAL_LM",
}


def train_qlora(
    base: BaseModelSpec,
    folder: Path,
    rows: torch.Tensor | None = None,
    steps: int = 12,
    learning_rate: float = 1e-2,
    **changes: Any,
) -> list[float]:
    """Train on rows of tokens, save the adapter, and return the loss of each step."""
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(
        base.source, dtype=torch.float32, quantization_config=quantization
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        adapted = peft.get_peft_model(model, peft.LoraConfig(**{**CONFIG, **changes}))
    optimizer = torch.optim.AdamW(
        [each for each in adapted.parameters() if each.requires_grad], lr=learning_rate
    )
    tokens = torch.randint(5, 300, (4, 24)) if rows is None else rows
    losses = []
    for _ in range(steps):
        loss = adapted(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted.save_pretrained(str(folder))
    return losses
