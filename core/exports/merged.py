"""Writes a tuned model as one dense model: the adapter merged into its base, layer by layer.

Only one copy of the weights is in memory. `core.artifacts.merge` sums in fp32 and rounds once.
"""

import torch
from transformers import PreTrainedModel

from core.artifacts.manifest import Manifest, read_manifest
from core.artifacts.merge import merge
from core.catalog.describe import is_stored_quantized
from core.catalog.strategies import STRATEGIES
from core.engine.device.adapter_loading import fit_head, load_on
from core.exports.bundle_files import copy_tokenizer
from core.exports.dequantize import dequantize
from core.exports.memory import require_disk, require_memory, weight_bytes
from core.exports.save import save_model
from core.exports.sources import labels_of, model_source, stored_dtype
from core.models.load import folder_of, load_base, load_config, outline
from core.models.precision import dtype_of, name_of
from core.spec.base_model import BaseModelSpec
from core.spec.export_steps import WriteStep, Written
from core.spec.objective import ClassificationSpec
from core.spec.strategy import QloraSpec

CPU = torch.device("cpu")


def write_merged(step: WriteStep) -> Written:
    """Write weights, config and tokenizer of the tuned model into the folder `step.out`.

    Raises InvalidRequest `does_not_fit` or `disk_full` before any weight is read.
    """
    manifest = read_manifest(step.bundle)
    source = model_source(step.base, step.bundle, manifest)
    source = source.model_copy(update={"quantization": None})
    named = step.options.precision
    dtype = dtype_of(named) if named is not None else stored_dtype(source)
    labels = labels_of(manifest)
    require_memory(source, dtype, manifest.task, labels, "to be merged")
    step.out.mkdir(parents=True)
    require_disk(step.out, weight_bytes(source, dtype, manifest.task, labels))
    model = _dense(source, dtype, manifest, step)
    if not STRATEGIES[manifest.strategy.type].full_model:
        model = merge(load_on(model, "bundle", step.bundle, fit_head))
    _describe(model, manifest)
    save_model(model, step.out, folder_of(step.base))
    copy_tokenizer(step.bundle, step.out)
    return Written(stored_in=name_of(dtype))


def _dense(
    source: BaseModelSpec, dtype: torch.dtype, manifest: Manifest, step: WriteStep
) -> PreTrainedModel:
    """Load the weights to merge into; those of a quantized base are made dense again."""
    task, labels = manifest.task, labels_of(manifest)
    strategy = manifest.strategy
    rounding = None
    if step.options.merge_into == "dequantized" and isinstance(strategy, QloraSpec):
        rounding = strategy
    config = load_config(source)
    model = load_base(source, dtype, CPU, task=task, labels=labels, quantization=rounding)
    if rounding is not None or is_stored_quantized(config.to_dict()):
        dequantize(model, outline(source, config, task, labels), dtype)
    return model


def _describe(model: PreTrainedModel, manifest: Manifest) -> None:
    """Make the config say what the weights are."""
    config, objective = model.config, manifest.objective
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and config.tie_word_embeddings and head.weight is not embeddings.weight:
        config.tie_word_embeddings = False  # one of them was trained; loading would tie them again
    if isinstance(objective, ClassificationSpec):
        config.id2label = dict(enumerate(objective.labels))
        config.label2id = {label: index for index, label in enumerate(objective.labels)}
        several = objective.multi_label
        config.problem_type = (
            "multi_label_classification" if several else "single_label_classification"
        )
