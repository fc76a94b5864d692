"""Noise on the embeddings while training.

Uniform in ±α / √(L · E) for a text of L tokens. Source: Jain et al. 2023, NEFTune,
https://arxiv.org/abs/2310.05914; for one text it equals transformers' `neftune_post_forward_hook`.
"""

# T tokens of a packed batch, E hidden size, P virtual tokens

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from core.adapters.adapted import AdaptedModel


def add_noise(adapted: AdaptedModel, alpha: float) -> None:
    """Add noise to the embeddings of every text from now on, in training mode only.

    L is the length of each text, regardless of its batch. Virtual tokens get no noise; in an
    encoder-decoder only the source does. Draws from torch's global generator.
    """
    model = adapted.model
    backbone = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    embed = backbone.get_input_embeddings()

    def disturb(
        module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not module.training:
            return None
        tokens = named.pop("input_ids", None)
        embedded = named["inputs_embeds"] if tokens is None else embed(tokens)
        noise = torch.zeros_like(embedded)
        virtual = 0 if adapted.soft_prompt is None else adapted.soft_prompt.tokens
        for text in _texts(noise, virtual, named):
            if text.numel() == 0:  # of the padding of a batch
                continue
            bound = alpha / math.sqrt(text.numel())
            text.uniform_(-bound, bound)
        named["inputs_embeds"] = embedded + noise
        return arguments, named

    backbone.register_forward_pre_hook(disturb, with_kwargs=True)


def _texts(noise: Tensor, virtual: int, named: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the view (L, E) of `noise` for each text."""
    if "segment_lengths" in named:
        for segment_SE in noise[0].split(list(named["segment_lengths"])):
            yield segment_SE[virtual:]
    else:
        lengths_B = named["attention_mask"].sum(dim=1).tolist()
        for row_SE, length in zip(noise, lengths_B, strict=True):
            yield row_SE[virtual:length]
