"""Loading of a base model and its tokenizer from a folder or the Hugging Face hub.

Only safetensors are read and no code that comes with a model is ever run. All functions of a base
raise NotFound `base_not_found` for files that are missing or unreadable, and InvalidRequest
`unsupported_model` for files that make no model or tokenizer.
"""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, assert_never

import torch
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

from core.catalog.describe import comes_quantised, is_quantised
from core.catalog.families import context_length, family_of
from core.errors import InvalidRequest, NotFound
from core.spec.base_model import BaseModelSpec
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
"""What transformers raises on files that are damaged or not of a model it knows."""

NF4 = QloraSpec(quantization="nf4", double_quantization=True)
"""What the quantization `nf4` of a base is: that on which qlora trains unless told otherwise."""

_MODEL_CLASSES: dict[Task, Any] = {
    "generation": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classification": AutoModelForSequenceClassification,
}


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


def context_of(config: PreTrainedConfig) -> int:
    """Return how many tokens a row may hold, as `core.catalog.describe` says before a job."""
    length = context_length(config.to_dict())
    assert length is not None, "the configs of all families have the field of their limit"
    return length


def outline(
    base: BaseModelSpec, config: PreTrainedConfig, task: Task, labels: int | None = None
) -> PreTrainedModel:
    """Return the model that `load_base` would load, on the meta device and not quantised.

    It has every module and shape, no weights, and costs milliseconds. `config` stays as it is.
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
    """Return the base on `device` in `dtype`: evaluation mode, every parameter frozen.

    For the task classification it gets a head for `labels` labels; what of it the base lacks is
    drawn from torch's global generator, so seed that first. With `quantization` the linear layers
    of the blocks are quantised to four bits on the way; a base that is quantised by itself, as it
    is stored or by its catalog entry, comes so, whatever is asked for. The head is never quantised.

    Raises InvalidRequest for a base that is quantised in a way that cannot be trained.
    """
    config = load_config(base)
    family = family_of(config.model_type)
    comes_quantised(base, config.to_dict())  # refuses what is quantised twice
    options = _quantization_options(base, config, dtype, device, task, quantization)
    if labels is not None:
        config.num_labels = labels
        options["ignore_mismatched_sizes"] = True  # the base may classify into other labels
    with _reading(base):
        model: PreTrainedModel
        model, found = _MODEL_CLASSES[task].from_pretrained(
            base.source,
            output_loading_info=True,
            config=config,
            revision=base.revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    _require_complete(base, found, family.head if task == "classification" else ())
    model.requires_grad_(False)
    if "device_map" in options:
        keep_as_quantised(model)
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
    """Return what `from_pretrained` is told to load a quantised base; nothing for a dense one.

    The config of a base that is stored quantised may be changed.
    """
    head = family_of(config.model_type).head if task == "classification" else ("lm_head",)
    dense = _patterns(head)
    if is_quantised(config.to_dict()):
        stored = config.quantization_config
        if task == "classification":  # its head is not among the layers that the base left dense
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
    """Refuse a base that lacks weights of its config, beside those in modules that are `new`.

    transformers draws what is missing and goes on; nobody would want to train that.
    """
    drawn = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    lacking = sorted(name for name in drawn if not set(name.split(".")) & set(new))
    if lacking:
        raise InvalidRequest(
            f"The weights of the base model {base.id} lack {lacking[0]!r}, which its config.json "
            f"promises ({len(lacking)} in all). Save it again with save_pretrained.",
            param="model",
            code="unsupported_model",
        )


def keep_as_quantised(model: PreTrainedModel) -> None:
    """Have quantised layers compute the same for a row, whatever ran before it and beside it.

    With AVX-512-bf16 bitsandbytes lays weights of four bits out anew in evaluation mode, and from
    then on its layers pass no gradient on: a validation before the last step would change the
    training. Layers of eight bits round their input by what stands in the other rows.
    """
    # here, because a machine that runs no quantised base may lack bitsandbytes
    from core.models.quantised import StoredInEightBits

    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        StoredInEightBits.take_over(module)


def _patterns(names: tuple[str, ...]) -> list[str]:
    """Return patterns of transformers for modules, and all in them, by the end of their paths."""
    return [rf"(.*\.)?{name}" for name in names]


@contextmanager
def _reading(base: BaseModelSpec) -> Iterator[None]:
    """Turn what is wrong with a base's files into our errors; where it looked goes to the log."""
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
    except _DEFECTS as error:
        logger.error("The base %s cannot be used: %s: %s", base.id, type(error).__name__, error)
        raise InvalidRequest(
            f"The files of the base model {base.id} make no model or no tokenizer that can be used "
            "here; the log of the worker or the engine says why. Save it again with "
            "save_pretrained.",
            param="model",
            code="unsupported_model",
        ) from error
