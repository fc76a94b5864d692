"""The tensors of encoder-decoder sequences that started together.

The encoder reads all sources once, padded on the right, because some models derive positions from
the index in the row. All rows of the decoder start together.
"""
# B rows, T tokens of the decoder, S columns of the longest source, E hidden size, V vocabulary

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from core.adapters.adapted import AdaptedModel
from core.adapters.virtual import Prefix, SoftPrompt
from core.engine.device.paged_step import PLACEHOLDER


class EncoderDecoderBatch:
    """Rows of an encoder-decoder: the encoder's states of the sources, and two caches."""

    def __init__(self, states_BSE: Tensor, mask_BS: Tensor, cache: EncoderDecoderCache) -> None:
        self._states_BSE = states_BSE
        self._mask_BS = mask_BS
        self._cache = cache

    @classmethod
    def begin(
        cls, adapted: AdaptedModel, prompts: Sequence[tuple[int, ...]]
    ) -> tuple["EncoderDecoderBatch", Tensor]:
        """Encode the sources; return the batch and the logits (B, V) of its first tokens.

        A soft prompt precedes each source; a prefix precedes the decoder's tokens.
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
            own = virtual.states(model.dtype).cache(len(prompts))
        batch = cls(states_BSE, mask_BS, EncoderDecoderCache(own, DynamicCache()))
        opening_BT = torch.tensor([opening] * len(prompts), device=model.device)
        return batch, batch.decode(model, opening_BT)

    def decode(self, model: PreTrainedModel, ids_BT: Tensor) -> Tensor:
        """Process more tokens of each row; return the logits (B, V) of the next tokens."""
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


def _opening_tokens(model: PreTrainedModel) -> list[int]:
    """Return the first tokens of the decoder: its start token, and for BART often one more."""
    named = (model.config.decoder_start_token_id, model.generation_config.forced_bos_token_id)
    return [token for token in named if token is not None]
