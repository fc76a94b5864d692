"""Loads the model of a run: base, strategy, and the weights of a tuned model to train further."""

import torch
from transformers import PreTrainedTokenizerBase

from core.adapters.adapted import AdaptedModel
from core.catalog.families import family_of
from core.catalog.strategies import STRATEGIES
from core.models.attention import use_packed_attention
from core.models.load import load_base
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec
from core.spec.strategy import QloraSpec
from core.spec.workspace import Workspace
from core.strategies.attach import attach
from core.strategies.load import load_weights


def base_of(spec: JobSpec, workspace: Workspace) -> BaseModelSpec:
    """Return the base to load, which is the parent if a fully trained model is trained further."""
    if spec.parent is None or not STRATEGIES[spec.strategy.type].full_model:
        return spec.base
    return BaseModelSpec(id=spec.base.id, source=str(workspace.parent_folder))


def load_model(
    spec: JobSpec,
    workspace: Workspace,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
    device: torch.device,
) -> AdaptedModel:
    """Return the base with trainable weights. New weights depend only on the seed."""
    labels = spec.objective.labels if isinstance(spec.objective, ClassificationSpec) else None
    torch.manual_seed(spec.seed)
    model = load_base(
        base_of(spec, workspace),
        dtype,
        device,
        task=spec.task,
        labels=len(labels) if labels else None,
        quantization=spec.strategy if isinstance(spec.strategy, QloraSpec) else None,
    )
    if labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: index for index, label in enumerate(labels)}
    if family_of(model.config.model_type).layout == "packed":
        use_packed_attention(model)
    torch.manual_seed(spec.seed)
    adapted = attach(model, spec.strategy, tokenizer)
    if spec.parent is not None and not STRATEGIES[spec.strategy.type].full_model:
        load_weights(adapted, workspace.parent_folder)
    return adapted
