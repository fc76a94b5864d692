"""Loading of a base model and its tokenizer from a folder or the Hugging Face hub.

Only safetensors are read and no code that comes with a model is ever run. All three functions
raise NotFound `base_not_found` for files that are missing or unreadable.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from core.errors import InvalidRequest, NotFound
from core.spec.run import BaseModelSpec

logger = logging.getLogger(__name__)


def load_config(base: BaseModelSpec) -> PreTrainedConfig:
    """Return the configuration of the base; no weights are read."""
    with _reading(base):
        return AutoConfig.from_pretrained(
            base.source, revision=base.revision, trust_remote_code=False
        )


def load_tokenizer(base: BaseModelSpec) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the base; InvalidRequest when it cannot report text offsets."""
    with _reading(base):
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
    with _reading(base):
        model = AutoModelForCausalLM.from_pretrained(
            base.source,
            revision=base.revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
        )
    model.requires_grad_(False)
    return model.to(device).eval()


@contextmanager
def _reading(base: BaseModelSpec) -> Iterator[None]:
    """Turn a failure to read into NotFound `base_not_found`; where it looked goes to the log."""
    try:
        yield
    except OSError as error:
        logger.error("The base %s cannot be read: %s", base.id, error)
        raise NotFound(
            f"The files of the base model {base.id} cannot be read on the machine that runs it. "
            "Check its source in the catalog, and HF_TOKEN when the model is gated; the log of "
            "the worker or the engine says where it looked.",
            param="model",
            code="base_not_found",
        ) from error
