"""The tensors of one group from its prompts to its last token, for both kinds of models.

Prompts of a decoder are padded on the left, so that all rows continue at the same column; mask and
positions make each row compute what it would compute alone. An encoder-decoder reads its prompts
once, padded on the right, since some take positions from the place in the row; all rows of its
decoder start together.
"""
# B rows of a group, T columns so far (padding and tokens), S columns of the longest source,
# P virtual tokens, E hidden size, V vocabulary

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from core.adapters.adapted import AdaptedModel
from core.adapters.virtual import Prefix, SoftPrompt
from core.engine.cache import PrefixedCache

PLACEHOLDER = 0
"""A token that is read and has no effect: padding, or the place of a virtual token."""

Prompts = Sequence[tuple[int, ...]]


class DecoderBatch:
    """Rows of a causal model: cache and mask."""

    def __init__(self, cache: DynamicCache, mask_BT: Tensor) -> None:
        self._cache = cache
        self._mask_BT = mask_BT

    @classmethod
    def begin(cls, adapted: AdaptedModel, prompts: Prompts) -> tuple["DecoderBatch", Tensor]:
        """Read the prompts; return the batch and the logits (B, V) of its first tokens."""
        model, virtual = adapted.model, adapted.virtual
        virtual_tokens = 0 if virtual is None else virtual.tokens
        columns = virtual_tokens + max(map(len, prompts))
        padding = [columns - virtual_tokens - len(prompt) for prompt in prompts]
        ids_BT = torch.full((len(prompts), columns), PLACEHOLDER, device=model.device)
        mask_BT = torch.ones_like(ids_BT)
        for row, (pad, prompt) in enumerate(zip(padding, prompts, strict=True)):
            mask_BT[row, :pad] = 0
            ids_BT[row, pad + virtual_tokens :] = torch.tensor(prompt)
        if isinstance(virtual, Prefix):
            prefix = virtual.states(model.dtype)
            batch = cls(PrefixedCache(prefix, padding, model.config), mask_BT)
        else:
            batch = cls(DynamicCache(config=model.config), mask_BT)
        if isinstance(virtual, SoftPrompt):
            embeddings_BTE = model.get_input_embeddings()(ids_BT)
            for row, pad in enumerate(padding):
                embeddings_BTE[row, pad : pad + virtual_tokens] = virtual.embeddings_PE
            return batch, batch._forward(model, inputs_embeds=embeddings_BTE)
        return batch, batch._forward(model, input_ids=ids_BT)

    def decode(self, model: PreTrainedModel, last_B1: Tensor) -> Tensor:
        """Read one more token of each row; return the logits (B, V) of the next ones."""
        self._mask_BT = torch.cat([self._mask_BT, torch.ones_like(last_B1)], dim=1)
        return self._forward(model, input_ids=last_B1)

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order."""
        index = torch.tensor(rows, device=self._mask_BT.device)
        self._cache.batch_select_indices(index)
        self._mask_BT = self._mask_BT[index]

    def _forward(self, model: PreTrainedModel, **tokens: Tensor) -> Tensor:
        columns = next(iter(tokens.values())).shape[1]
        positions_BT = (self._mask_BT.cumsum(dim=1) - 1).clamp(min=0)[:, -columns:]
        output = model(
            **tokens,
            attention_mask=self._mask_BT,
            position_ids=positions_BT,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_B1V: Tensor = output.logits
        return logits_B1V[:, -1]


class EncoderDecoderBatch:
    """Rows of an encoder-decoder: what the encoder made of the sources, and two caches."""

    def __init__(self, states_BSE: Tensor, mask_BS: Tensor, cache: EncoderDecoderCache) -> None:
        self._states_BSE = states_BSE
        self._mask_BS = mask_BS
        self._cache = cache

    @classmethod
    def begin(cls, adapted: AdaptedModel, prompts: Prompts) -> tuple["EncoderDecoderBatch", Tensor]:
        """Read the sources; return the batch and the logits (B, V) of its first tokens.

        A soft prompt stands before each source, a prefix before what the decoder writes.
        """
        model, virtual = adapted.model, adapted.virtual
        soft_tokens = virtual.tokens if isinstance(virtual, SoftPrompt) else 0
        columns = soft_tokens + max(map(len, prompts))
        ids_BS = torch.full((len(prompts), columns), PLACEHOLDER, device=model.device)
        mask_BS = torch.zeros_like(ids_BS)
        for row, prompt in enumerate(prompts):
            end = soft_tokens + len(prompt)
            ids_BS[row, soft_tokens:end] = torch.tensor(prompt)
            mask_BS[row, :end] = 1
        encoder = model.get_encoder()
        embeddings_BSE = encoder.get_input_embeddings()(ids_BS)
        if isinstance(virtual, SoftPrompt):
            embeddings_BSE[:, :soft_tokens] = virtual.embeddings_PE
        states_BSE = encoder(inputs_embeds=embeddings_BSE, attention_mask=mask_BS)[0]
        opening = _opening_tokens(model)
        own = DynamicCache()
        if isinstance(virtual, Prefix):
            opening = [PLACEHOLDER] * virtual.tokens + opening
            own = PrefixedCache(virtual.states(model.dtype), [0] * len(prompts))
        batch = cls(states_BSE, mask_BS, EncoderDecoderCache(own, DynamicCache()))
        opening_BT = torch.tensor([opening] * len(prompts), device=model.device)
        return batch, batch.decode(model, opening_BT)

    def decode(self, model: PreTrainedModel, ids_BT: Tensor) -> Tensor:
        """Read more tokens of each row; return the logits (B, V) of the next ones."""
        output = model(
            encoder_outputs=BaseModelOutput(self._states_BSE),
            attention_mask=self._mask_BS,
            decoder_input_ids=ids_BT,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits_BTV: Tensor = output.logits
        return logits_BTV[:, -1]

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order."""
        index = torch.tensor(rows, device=self._mask_BS.device)
        self._cache.batch_select_indices(index)
        self._states_BSE = self._states_BSE[index]
        self._mask_BS = self._mask_BS[index]


Batch = DecoderBatch | EncoderDecoderBatch


def begin(adapted: AdaptedModel, prompts: Prompts) -> tuple[Batch, Tensor]:
    """Read the prompts; return the batch and the logits (B, V) of its first tokens."""
    if adapted.model.config.is_encoder_decoder:
        return EncoderDecoderBatch.begin(adapted, prompts)
    return DecoderBatch.begin(adapted, prompts)


def _opening_tokens(model: PreTrainedModel) -> list[int]:
    """Return what the decoder reads first: its start, and for BART often a token that follows."""
    named = (model.config.decoder_start_token_id, model.generation_config.forced_bos_token_id)
    return [token for token in named if token is not None]
