"""Adapters as unmodified PEFT makes, trains and saves them, one for each kind."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from core.adapter_files.check import gather
from core.made_models.run import make_bundle
from core.spec.base_model import BaseModelSpec
from core.spec.making import ImportSource, LabelSpec, MadeBundle, MakingRequest

CLASSES: dict[str, Any] = {
    "CAUSAL_LM": AutoModelForCausalLM,
    "SEQ_2_SEQ_LM": AutoModelForSeq2SeqLM,
    "SEQ_CLS": AutoModelForSequenceClassification,
}
LABELS = 3


@dataclass(frozen=True)
class Kind:
    """A config of PEFT, and the family of its base."""

    config: Callable[[], peft.PeftConfig]
    family: str = "llama"
    base_options: dict[str, Any] = field(default_factory=dict)


def _lora(**options: Any) -> Callable[[], peft.PeftConfig]:
    chosen = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "lora_dropout": 0.1} | options
    return lambda: peft.LoraConfig(**chosen)


def _virtual(kind: Any, **options: Any) -> Callable[[], peft.PeftConfig]:
    chosen = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 5} | options
    return lambda: kind(**chosen)


QV = ["q_proj", "v_proj"]
TIED = {"tie_word_embeddings": True}
KINDS: dict[str, Kind] = {
    "lora": Kind(_lora(target_modules=QV)),
    "rslora": Kind(_lora(target_modules=QV, use_rslora=True)),
    "dora": Kind(_lora(target_modules=QV, use_dora=True)),
    "all linear": Kind(_lora(target_modules="all-linear")),
    "patterns": Kind(
        _lora(
            target_modules=[*QV, "up_proj"],
            rank_pattern={"q_proj": 2, r"layers\.1\.self_attn\.v_proj": 6, "nothing": 3},
            alpha_pattern={"^model.layers.0.self_attn.q_proj": 16},
        )
    ),
    "regular expression": Kind(_lora(target_modules=r"^(?!.*mlp).*layers\.1\.(.*)(q|o)_proj$")),
    "some layers": Kind(_lora(target_modules=QV, layers_to_transform=[1])),
    "excluded layers": Kind(
        _lora(target_modules=QV, exclude_modules=["layers.0.self_attn.q_proj"])
    ),
    "modules_to_save": Kind(_lora(target_modules=QV, modules_to_save=["lm_head", "norm"])),
    "embedding and head": Kind(_lora(target_modules=[*QV, "embed_tokens", "lm_head"])),
    "embedding, tied": Kind(_lora(target_modules=[*QV, "embed_tokens"]), base_options=TIED),
    "tokens": Kind(_lora(target_modules=QV, trainable_token_indices=[5, 9, 300])),
    "tokens, tied": Kind(
        _lora(target_modules=QV, trainable_token_indices={"embed_tokens": [7, 11]}),
        base_options=TIED,
    ),
    "bias without any": Kind(_lora(target_modules=QV, bias="all")),
    "gpt2": Kind(_lora(target_modules=["c_attn", "c_fc"]), "gpt2"),
    "prefix": Kind(_virtual(peft.PrefixTuningConfig)),
    "prefix with a projection": Kind(
        _virtual(peft.PrefixTuningConfig, prefix_projection=True, encoder_hidden_size=16)
    ),
    "prompt": Kind(_virtual(peft.PromptTuningConfig)),
    "p-tuning": Kind(_virtual(peft.PromptEncoderConfig, encoder_hidden_size=16)),
    "ia3": Kind(
        lambda: peft.IA3Config(
            task_type="CAUSAL_LM",
            target_modules=["k_proj", "v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
        )
    ),
    "ia3 by PEFT's defaults": Kind(lambda: peft.IA3Config(task_type="CAUSAL_LM")),
    "classifier": Kind(
        _lora(
            target_modules=["query", "value"],
            task_type="SEQ_CLS",
            modules_to_save=["pooler", "classifier"],
        ),
        "bert",
    ),
    "classifier on a decoder": Kind(_lora(target_modules=QV, task_type="SEQ_CLS")),
    "classifier by a prompt": Kind(
        _virtual(
            peft.PromptTuningConfig,
            task_type="SEQ_CLS",
            modules_to_save=["pooler", "classifier"],
        ),
        "bert",
    ),
    "seq2seq": Kind(_lora(target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM"), "t5"),
    "seq2seq prompt": Kind(_virtual(peft.PromptTuningConfig, task_type="SEQ_2_SEQ_LM"), "t5"),
    "seq2seq prefix": Kind(_virtual(peft.PrefixTuningConfig, task_type="SEQ_2_SEQ_LM"), "t5"),
}


def make(
    config: peft.PeftConfig,
    base: BaseModelSpec,
    folder: Path,
    seed: int = 1,
    spread: float = 0.08,
) -> Any:
    """Save an adapter that has learned something at random; return PEFT's model in memory."""
    task = str(getattr(config.task_type, "value", config.task_type))
    options = {"num_labels": LABELS} if task == "SEQ_CLS" else {}
    torch.manual_seed(0)
    model = CLASSES[task].from_pretrained(base.source, dtype=torch.float32, **options)
    torch.manual_seed(seed)
    with warnings.catch_warnings():  # PEFT warns of what some of the adapters are about
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                wide = 0.5 if "prompt_encoder" in name else spread
                parameter.add_(torch.randn_like(parameter) * wide)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted.save_pretrained(str(folder))
    return adapted.eval()


def imported(folder: Path, base: BaseModelSpec, adapter: Path, **labels: Any) -> MadeBundle:
    """Import the files of a folder into `folder`/bundle, without the task around it."""
    files = [(path.name, path) for path in adapter.iterdir()]
    source = ImportSource(
        parts=gather(files, folder / "adapter"), labels=LabelSpec.model_validate(labels)
    )
    return make_bundle(MakingRequest(folder, base, source, threads=1, precision="fp32"))
