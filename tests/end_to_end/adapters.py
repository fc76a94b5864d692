"""Adapters of the shipped base as PEFT saves them, and as users pack them."""

import io
import zipfile
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM

from tests.worker import workshop

TINY = workshop.TINY.source


def adapter(folder: Path, seed: int, **options: Any) -> Path:
    """Save an adapter with PEFT that writes something else than the base."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    chosen = {"r": 4, "target_modules": ["q_proj", "v_proj"]} | options
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **chosen))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.save_pretrained(str(folder))
    return folder


def zipped(folder: Path) -> tuple[str, bytes]:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    return "adapter.zip", out.getvalue()
