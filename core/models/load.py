"""Loading of a base model and its tokenizer from a folder or the Hugging Face hub.

Only safetensors are read and no code that comes with a model is ever run.
"""

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from core.errors import InvalidRequest
from core.spec.run import BaseModelSpec


def load_config(base: BaseModelSpec) -> PreTrainedConfig:
    """Return the configuration of the base; no weights are read."""
    return AutoConfig.from_pretrained(base.source, revision=base.revision, trust_remote_code=False)


def load_tokenizer(base: BaseModelSpec) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the base; InvalidRequest when it cannot report text offsets."""
    tokenizer = AutoTokenizer.from_pretrained(
        base.source, revision=base.revision, trust_remote_code=False
    )
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InvalidRequest(
            f"The tokenizer of {base.id} has no fast version (tokenizer.json), which exact loss "
            "masks need. Convert it once with transformers and register the base again.",
            param="model",
            code="unsupported_model",
        )
    return tokenizer


def load_base(base: BaseModelSpec, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Return the base on `device` in `dtype`: evaluation mode, every parameter frozen."""
    model = AutoModelForCausalLM.from_pretrained(
        base.source,
        revision=base.revision,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
    )
    model.requires_grad_(False)
    return model.to(device).eval()
