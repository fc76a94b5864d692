"""Prefix tuning: the shape of the keys and values, and their names in PEFT."""

import peft
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.modules_to_save import classifier_head, trainable_copies
from core.adapters.targets import peft_task
from core.adapters.virtual import Prefix, head_weights
from core.catalog.families import family_of
from core.spec.strategy import PrefixSpec


def attach_prefix(model: PreTrainedModel, spec: PrefixSpec) -> AdaptedModel:
    """Add keys and values before every text; they and the head of a classifier are trained.

    In an encoder-decoder they belong to the decoder's self-attention. As PEFT reads its own file
    there, layer i uses pair 2 i mod L: if L is even, half of the pairs are used by two layers each
    and the others by none.
    """
    model.requires_grad_(False)
    layers, heads, head_size = _attention_shape(model.config)
    features = layers * 2 * heads * head_size
    drawn_on = "meta" if model.device.type == "meta" else "cpu"
    drawn = nn.Embedding(spec.virtual_tokens, features, device=drawn_on).weight.detach()
    dtype = torch.promote_types(model.dtype, torch.float32)
    task = peft_task(model)
    submodules = 2 if task == peft.TaskType.SEQ_2_SEQ_LM else 1
    order = [submodules * layer % layers for layer in range(layers)]
    prefix = Prefix(drawn.to(model.device, dtype), heads, head_size, order)
    head = classifier_head(model)
    copies = trainable_copies(model, head)
    adapted = AdaptedModel(
        model,
        {"prompt_embeddings": prefix.weights, **head_weights(copies)},
        peft.PrefixTuningConfig(
            task_type=task,
            num_virtual_tokens=spec.virtual_tokens,
            token_dim=heads * head_size,
            num_transformer_submodules=submodules,
            num_attention_heads=heads,
            num_layers=layers,
            encoder_hidden_size=heads * head_size,  # of a projection that is not used
            modules_to_save=list(head) or None,
        ),
        replaced=copies,
        virtual=prefix,
    )
    adapted.install()
    return adapted


def _attention_shape(config: PreTrainedConfig) -> tuple[int, int, int]:
    """Return layers, key/value heads and head size, of the decoder if there are two stacks."""
    fields = family_of(config.model_type).attention
    heads = getattr(config, fields.heads)
    head_size = getattr(config, fields.head_size, None) or config.hidden_size // heads
    return getattr(config, fields.layers), getattr(config, fields.key_value_heads, heads), head_size
