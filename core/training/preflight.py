"""Rejects jobs that are impossible by the config of their base, before any weights are loaded.

The strategy is attached to an outline of the model on the meta device, so the rules and the error
messages are those of `core/strategies/`.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from core.adapters.targets import linear_paths
from core.catalog.combinations import require_combination
from core.catalog.describe import is_stored_quantized, loads_quantized
from core.catalog.families import family_of
from core.catalog.room import require_room
from core.catalog.strategies import fully_trained_modules
from core.errors import InvalidRequest
from core.models.load import context_of, outline
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec
from core.spec.strategy import QloraSpec
from core.strategies.attach import attach


def require_fit(
    spec: JobSpec, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Raise InvalidRequest, with the field, if the job is impossible on a base with `config`.

    No weights are read, and torch's generators do not change.
    """
    quantized = loads_quantized(spec.base, config.to_dict())
    combination = spec.task, spec.objective.type, spec.strategy.type
    require_combination(config.model_type, *combination, quantized=quantized)
    context_length = min(context_of(config), tokenizer.model_max_length)
    require_room(spec.strategy, context_length, spec.base.id)
    labels = spec.objective.labels if isinstance(spec.objective, ClassificationSpec) else None
    model = outline(spec.base, config, spec.task, len(labels) if labels else None)
    quantizes = spec.base.quantization is not None or isinstance(spec.strategy, QloraSpec)
    if quantizes and not is_stored_quantized(config.to_dict()):
        _require_dense(model, fully_trained_modules(spec.strategy))
    with torch.random.fork_rng(devices=[]):
        attach(model, spec.strategy, tokenizer, prepack=False)


def _require_dense(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Raise InvalidRequest if a module to train completely will be quantized during loading.

    The outline is not quantized, so `attach` cannot detect this.
    """
    kept = {*family_of(model.config.model_type).head, *(model._keep_in_fp32_modules or ())}
    for path in linear_paths(model):
        parts = path.split(".")
        if kept.intersection(parts):
            continue
        ends = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        for name in names:
            if name and any(end.endswith(name) for end in ends):
                raise InvalidRequest(
                    f"The module {name} cannot be trained completely: {path} in it is quantized, "
                    "and quantized weights cannot be trained. Remove it, or use lora on a base "
                    "that is not quantized.",
                    param="strategy.modules_to_save",
                    code="unsupported_target_module",
                )
