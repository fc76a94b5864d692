"""Loads base models and their tokenizers from a folder or the cache of the Hugging Face hub.

Only safetensors are read, and no code that comes with a model is run. The network is never used:
requests and runs would wait for the hub. All functions that read a base raise NotFound
`base_missing` if its files are not on this machine, NotFound `base_not_found` if they are
unreadable, and InvalidRequest `unsupported_model` if they are not a usable model or tokenizer.
"""

import copy
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, assert_never

import torch
from huggingface_hub import constants
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import cached_file

from core.catalog.base_files import base_folder, config_folder, is_on_hub
from core.catalog.describe import is_stored_quantized, loads_quantized
from core.catalog.families import context_length, family_of
from core.errors import InvalidRequest, NotFound
from core.models.sixteen_bit_products import ensure_products
from core.spec.base_model import BaseModelSpec
from core.spec.engine_protocol import BaseMissing
from core.spec.objective import Task
from core.spec.strategy import QloraSpec

logger = logging.getLogger(__name__)

_DEFECTS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    StrictDataclassError,
    SafetensorError,
)
"""The exceptions of transformers for files that are damaged or of an unknown model."""

NF4 = QloraSpec(quantization="nf4", double_quantization=True)
"""The quantization `nf4` of a base, which is also the default of qlora."""

_MODEL_CLASSES: dict[Task, Any] = {
    "generation": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classification": AutoModelForSequenceClassification,
}


def folder_of(base: BaseModelSpec, *, has_weights: bool = False) -> Path:
    """Return the folder with the files of the base; NotFound `base_missing` without one.

    The weights need not be complete, except with `has_weights`: a bridge to vLLM has none.
    """
    if is_on_hub(base):
        find = base_folder if has_weights else config_folder
        folder = find(base, Path(constants.HF_HUB_CACHE))
    else:
        folder = Path(base.source) if Path(base.source).is_dir() else None
    if folder is None:
        raise BaseMissing(
            f"The files of the base model {base.id} are not on the machine that runs it. "
            f"GET /v1/models/{base.id} shows its state, and POST /v1/models/{base.id}/download "
            "downloads it from the Hugging Face hub.",
            param="model",
        )
    return folder


def load_config(base: BaseModelSpec) -> PreTrainedConfig:
    """Return the config of the base; no weights are read."""
    folder = folder_of(base)
    with _reading(base):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def load_tokenizer(base: BaseModelSpec) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the base; InvalidRequest if it cannot report text offsets."""
    folder = folder_of(base)
    with _reading(base):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InvalidRequest(
            f"The tokenizer of {base.id} has no fast version (tokenizer.json), which exact loss "
            "masks need. Convert it with transformers and register the base again.",
            param="model",
            code="unsupported_model",
        )
    return tokenizer


def read_json(base: BaseModelSpec, name: str, folder: str = "") -> Any:
    """Return the content of a JSON file of the base; None if the base has no such file."""
    with _reading(base):
        found = cached_file(
            base.source,
            name,
            subfolder=folder,
            revision=base.revision,
            _raise_exceptions_for_missing_entries=False,
        )
        return None if found is None else json.loads(Path(found).read_text(encoding="utf-8"))


def context_of(config: PreTrainedConfig) -> int:
    """Return the maximum tokens of a row, as `core.catalog.describe` does for the API."""
    length = context_length(config.to_dict())
    assert length is not None, "the configs of all families have the field of their limit"
    return length


def outline(
    base: BaseModelSpec, config: PreTrainedConfig, task: Task, labels: int | None = None
) -> PreTrainedModel:
    """Return the model that `load_base` would load, on the meta device and not quantized.

    It has all modules and shapes but no weights, and takes milliseconds. `config` does not change.
    """
    config = copy.deepcopy(config)
    if labels is not None:
        config.num_labels = labels
    with _reading(base), torch.device("meta"), torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = _MODEL_CLASSES[task].from_config(config)
    return model.eval()


def load_base(
    base: BaseModelSpec,
    dtype: torch.dtype,
    device: torch.device,
    *,
    task: Task = "generation",
    labels: int | None = None,
    quantization: QloraSpec | None = None,
) -> PreTrainedModel:
    """Return the base on `device` in `dtype`, in evaluation mode, with all parameters frozen.

    For classification it gets a head for `labels` labels. The weights of this head that the base
    lacks are drawn from torch's global generator, so seed it first. `quantization` quantizes the
    linear layers of the blocks to four bits. It has no effect on a base that is quantized by its
    files or its catalog entry. The head is never quantized.

    Raises InvalidRequest for a base whose quantization cannot be trained.
    """
    config = load_config(base)
    family = family_of(config.model_type)
    loads_quantized(base, config.to_dict())  # rejects a base that is quantized twice
    options = _quantization_options(base, config, dtype, device, task, quantization)
    if labels is not None:
        config.num_labels = labels
        options["ignore_mismatched_sizes"] = True  # the head of the base may have other labels
    with _reading(base):
        model: PreTrainedModel
        model, found = _MODEL_CLASSES[task].from_pretrained(
            folder_of(base, has_weights=True),
            output_loading_info=True,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    _require_complete(base, found, family.head if task == "classification" else ())
    ensure_products(device, dtype)
    model.requires_grad_(False)
    if "device_map" in options:
        make_rows_independent(model)
    else:
        model = model.to(device)
    return model.eval()


def _quantization_options(
    base: BaseModelSpec,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device,
    task: Task,
    quantization: QloraSpec | None,
) -> dict[str, Any]:
    """Return the options of `from_pretrained` for a quantized base; none for a dense one.

    May change the config of a base that is stored quantized.
    """
    head = family_of(config.model_type).head if task == "classification" else ("lm_head",)
    dense = patterns_of(head)
    if is_stored_quantized(config.to_dict()):
        stored = config.quantization_config
        if task == "classification":  # the base's list of dense layers lacks the new head
            stored["llm_int8_skip_modules"] = [*(stored.get("llm_int8_skip_modules") or ()), *dense]
        return {"device_map": {"": device}}
    match base.quantization:
        case "int8":
            eight_bits = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=dense)
            return {"device_map": {"": device}, "quantization_config": eight_bits}
        case "nf4":
            chosen: QloraSpec | None = NF4
        case None:
            chosen = quantization
        case _:
            assert_never(base.quantization)
    if chosen is None:
        return {}
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=chosen.quantization,
        bnb_4bit_use_double_quant=chosen.double_quantization,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=dense,
    )
    return {"device_map": {"": device}, "quantization_config": four_bits}


def _require_complete(base: BaseModelSpec, found: dict[str, Any], new: tuple[str, ...]) -> None:
    """Raise InvalidRequest if weights are missing, except in the modules `new`.

    transformers draws missing weights at random without an error.
    """
    drawn = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    lacking = sorted(name for name in drawn if not set(name.split(".")) & set(new))
    if lacking:
        raise InvalidRequest(
            f"The weights of the base model {base.id} lack {lacking[0]!r}, which its config.json "
            f"requires ({len(lacking)} missing in total). Save it again with save_pretrained.",
            param="model",
            code="unsupported_model",
        )


def make_rows_independent(model: PreTrainedModel) -> None:
    """Make the output of quantized layers for a row independent of earlier and of other rows.

    With AVX-512-bf16, bitsandbytes repacks 4-bit weights in evaluation mode, and its layers then
    pass no gradients: a validation before the last step would change the training. Its 8-bit layers
    round their input depending on the other rows.
    """
    # here, because a machine that runs no quantized base may lack bitsandbytes
    from core.models.quantized import StoredInEightBits

    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        StoredInEightBits.take_over(module)


def patterns_of(names: tuple[str, ...]) -> list[str]:
    """Return patterns for transformers that match the modules `names` and all modules in them."""
    return [rf"(.*\.)?{name}" for name in names]


@contextmanager
def _reading(base: BaseModelSpec) -> Iterator[None]:
    """Convert errors in a base's files to ours; the log has the details."""
    try:
        yield
    except OSError as error:
        logger.error("The base %s cannot be read: %s", base.id, error)
        raise NotFound(
            f"The files of the base model {base.id} cannot be read on the machine that runs it. "
            "Check their permissions. The log of the worker or the engine has the details.",
            param="model",
            code="base_not_found",
        ) from error
    except _DEFECTS as error:
        logger.error("The base %s cannot be used: %s: %s", base.id, type(error).__name__, error)
        raise InvalidRequest(
            f"The files of the base model {base.id} are not a usable model or tokenizer. Save it "
            "again with save_pretrained. The log of the worker or the engine has the details.",
            param="model",
            code="unsupported_model",
        ) from error
