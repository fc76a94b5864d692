"""A base model with a strategy's layers or virtual tokens, as run by training and engine."""

# T tokens of a packed batch, E hidden size, P virtual tokens, B rows, S longest source,
# D longest target

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import peft
import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

from core.adapters.virtual import Prefix, SoftPrompt
from core.batching.packing import PackedBatch
from core.batching.padding import PaddedBatch
from core.errors import InvalidRequest
from core.models.kernel_lengths import batch_padding, pad_batch


@dataclass
class AdaptedModel:
    """A model with a strategy's layers, or its virtual tokens before every text.

    Both can be removed and installed again, so that adapters can take turns on one base. The caller
    must not install two at once.
    """

    model: PreTrainedModel
    trainable: dict[str, nn.Parameter]
    """The trained parameters by PEFT's names, which the bundle uses."""
    config: peft.PeftConfig | None
    """The content of `adapter_config.json`; None for full fine-tuning."""
    replaced: dict[str, nn.Module] = field(default_factory=dict)
    """By path: the modules that replace those of the base."""
    virtual: Prefix | SoftPrompt | None = None
    _originals: dict[str, nn.Module] = field(default_factory=dict)
    _installed: bool = False

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.trainable.values())

    @property
    def trainable_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.trainable.values())

    @property
    def total_parameters(self) -> int:
        """The number of parameters of base and strategy while the strategy is installed."""
        virtual = () if self.virtual is None else self.virtual.parameters()
        return self.model.num_parameters() + sum(parameter.numel() for parameter in virtual)

    @property
    def prefix(self) -> Prefix | None:
        """The installed prefix, if any."""
        virtual = self.virtual if self._installed else None
        return virtual if isinstance(virtual, Prefix) else None

    @property
    def soft_prompt(self) -> SoftPrompt | None:
        """The installed soft prompt, if any."""
        virtual = self.virtual if self._installed else None
        return virtual if isinstance(virtual, SoftPrompt) else None

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the current trained weights on the CPU."""
        return {
            name: parameter.detach().cpu().clone() for name, parameter in self.trainable.items()
        }

    def install(self) -> None:
        """Install the strategy's layers and virtual tokens in the model."""
        for path, module in self.replaced.items():
            self._originals[path] = self.model.get_submodule(path)
            self.model.set_submodule(path, module)
        self._installed = True

    def remove(self) -> None:
        """Restore the base."""
        for path, module in self._originals.items():
            self.model.set_submodule(path, module)
        self._originals.clear()
        self._installed = False

    @contextmanager
    def off(self) -> Iterator[None]:
        """Run the base itself inside the block. Not meaningful for full fine-tuning."""
        self.remove()
        try:
            yield
        finally:
            self.install()

    @contextmanager
    def without(self, paths: Collection[str]) -> Iterator[None]:
        """Run with the base's modules at `paths`, which must be replaced, inside the block."""
        for path in paths:
            self.model.set_submodule(path, self._originals[path])
        try:
            yield
        finally:
            for path in paths:
                self.model.set_submodule(path, self.replaced[path])

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        """Return the hidden states (T, E) of the last layer; requires packed attention."""
        states_TE, lengths = self.all_states(batch)
        virtual = lengths[0] - batch.segment_lengths[0]
        if virtual == 0:
            return states_TE
        return torch.cat([segment_SE[virtual:] for segment_SE in states_TE.split(lengths)])

    def all_states(self, batch: PackedBatch) -> tuple[Tensor, list[int]]:
        """Return the hidden states including soft prompt tokens, and the length of each segment.

        PEFT's classifiers pool over both, so the first state of a segment may be a soft token's.
        """
        lengths = list(batch.segment_lengths)
        positions_1T = batch.positions_1T
        arguments: dict[str, Any] = {}
        if self.soft_prompt is not None:
            embedded_1TE = self.model.get_input_embeddings()(batch.tokens_1T)
            prompt_PE = self.soft_prompt.embeddings_PE.to(embedded_1TE.dtype)
            texts = embedded_1TE[0].split(lengths)
            parts = [part for text_SE in texts for part in (prompt_PE, text_SE)]
            lengths = [self.soft_prompt.tokens + length for length in lengths]
            positions_T = torch.cat([torch.arange(length) for length in lengths])
            name, tokens = "inputs_embeds", torch.cat(parts)[None]
            positions_1T = positions_T[None].to(embedded_1TE.device)
        else:
            name, tokens = "input_ids", batch.tokens_1T
        if self.prefix is not None:
            arguments["prefix"] = self.prefix.states(self.model.dtype)
            positions_1T = positions_1T + self.prefix.tokens
        length = sum(lengths)
        # the padding is a segment of its own, which no other sees, and is cut off again
        padding = batch_padding(length, self.model.device)
        arguments[name] = pad_batch(tokens, padding)
        output = self.model.base_model(
            **arguments,
            position_ids=pad_batch(positions_1T, padding),
            segment_lengths=[*lengths, padding] if padding else lengths,
            use_cache=False,
        )
        states_TE: Tensor = output.last_hidden_state[0, :length]
        return states_TE, lengths

    def decoder_states(self, batch: PaddedBatch) -> Tensor:
        """Return the hidden states (B · D, E) of the last layer of the decoder.

        A soft prompt precedes the source, a prefix the target. Raises InvalidRequest when a prefix
        is trained with gradient checkpointing, because transformers would drop the prefix.
        """
        source: dict[str, Any] = {}
        mask_BS = batch.source_mask_BS
        rows = len(mask_BS)
        if self.soft_prompt is not None:
            embedded_BSE = self.model.get_input_embeddings()(batch.source_tokens_BS)
            prompt_PE = self.soft_prompt.embeddings_PE.to(embedded_BSE.dtype)
            prompt_BPE = prompt_PE.expand(rows, -1, -1)
            source["inputs_embeds"] = torch.cat((prompt_BPE, embedded_BSE), dim=1)
            mask_BS = torch.cat((mask_BS.new_ones(rows, len(prompt_PE)), mask_BS), dim=1)
        else:
            source["input_ids"] = batch.source_tokens_BS
        decoder = self.model.get_decoder()
        before = None
        if self.prefix is not None:
            if decoder.training and decoder.gradient_checkpointing:
                raise InvalidRequest(
                    "Prefix tuning of an encoder-decoder does not support gradient checkpointing. "
                    "Set training.gradient_checkpointing to false.",
                    param="training.gradient_checkpointing",
                )
            own = self.prefix.states(self.model.dtype).cache(rows)
            before = EncoderDecoderCache(own, DynamicCache())
        encoded = self.model.get_encoder()(**source, attention_mask=mask_BS)
        output = decoder(
            input_ids=batch.decoder_tokens_BD,
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=mask_BS,
            past_key_values=before,
            use_cache=False,
        )
        states_BDE: Tensor = output.last_hidden_state
        return states_BDE.flatten(0, 1)
