"""A base model with the trained part of a strategy on it: what training and engine run."""

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


@dataclass
class AdaptedModel:
    """A model and what a strategy has put into it: layers, and virtual tokens before every text.

    Both can be taken out and put back in, so that one base carries many adapters in turn; it is
    the caller who sees to it that two of them are never in at once.
    """

    model: PreTrainedModel
    trainable: dict[str, nn.Parameter]
    """By their names in the bundle's file of weights, which are PEFT's."""
    config: peft.PeftConfig | None
    """What `adapter_config.json` says; None when the whole model is trained."""
    replaced: dict[str, nn.Module] = field(default_factory=dict)
    """By path: the modules that stand in the place of the base's own."""
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
        """Base and strategy together, as long as the strategy is installed."""
        virtual = () if self.virtual is None else self.virtual.parameters()
        return self.model.num_parameters() + sum(parameter.numel() for parameter in virtual)

    @property
    def prefix(self) -> Prefix | None:
        """The prefix that is installed, if there is one."""
        virtual = self.virtual if self._installed else None
        return virtual if isinstance(virtual, Prefix) else None

    @property
    def soft_prompt(self) -> SoftPrompt | None:
        """The soft prompt that is installed, if there is one."""
        virtual = self.virtual if self._installed else None
        return virtual if isinstance(virtual, SoftPrompt) else None

    def state(self) -> dict[str, Tensor]:
        """Return the trained weights of this moment, copied to the CPU."""
        return {
            name: parameter.detach().cpu().clone() for name, parameter in self.trainable.items()
        }

    def install(self) -> None:
        """Put layers and virtual tokens of this strategy into the model."""
        for path, module in self.replaced.items():
            self._originals[path] = self.model.get_submodule(path)
            self.model.set_submodule(path, module)
        self._installed = True

    def remove(self) -> None:
        """Give the model back as it was."""
        for path, module in self._originals.items():
            self.model.set_submodule(path, module)
        self._originals.clear()
        self._installed = False

    @contextmanager
    def off(self) -> Iterator[None]:
        """Run the base itself inside the block. Meaningless when the whole model is trained."""
        self.remove()
        try:
            yield
        finally:
            self.install()

    @contextmanager
    def without(self, paths: Collection[str]) -> Iterator[None]:
        """Run with the base's own modules at these of the replaced paths inside the block."""
        for path in paths:
            self.model.set_submodule(path, self._originals[path])
        try:
            yield
        finally:
            for path in paths:
                self.model.set_submodule(path, self.replaced[path])

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        """Return the states (T, E) after the last layer; the model must use packed attention."""
        states_TE, lengths = self.all_states(batch)
        virtual = lengths[0] - batch.segment_lengths[0]
        if virtual == 0:
            return states_TE
        return torch.cat([segment_SE[virtual:] for segment_SE in states_TE.split(lengths)])

    def all_states(self, batch: PackedBatch) -> tuple[Tensor, list[int]]:
        """Return the states of soft tokens and tokens, and how many both are in each segment.

        PEFT's classifiers pool over both: the first state of a segment is that of a soft token.
        """
        arguments: dict[str, Any] = {"position_ids": batch.positions_1T}
        lengths = list(batch.segment_lengths)
        if self.soft_prompt is not None:
            embedded_1TE = self.model.get_input_embeddings()(batch.tokens_1T)
            prompt_PE = self.soft_prompt.embeddings_PE.to(embedded_1TE.dtype)
            texts = embedded_1TE[0].split(lengths)
            parts = [part for text_SE in texts for part in (prompt_PE, text_SE)]
            lengths = [self.soft_prompt.tokens + length for length in lengths]
            positions_T = torch.cat([torch.arange(length) for length in lengths])
            arguments["inputs_embeds"] = torch.cat(parts)[None]
            arguments["position_ids"] = positions_T[None].to(embedded_1TE.device)
        else:
            arguments["input_ids"] = batch.tokens_1T
        if self.prefix is not None:
            arguments["prefix"] = self.prefix.states(self.model.dtype)
            arguments["position_ids"] = batch.positions_1T + self.prefix.tokens
        output = self.model.base_model(**arguments, segment_lengths=lengths, use_cache=False)
        states_TE: Tensor = output.last_hidden_state[0]
        return states_TE, lengths

    def decoder_states(self, batch: PaddedBatch) -> Tensor:
        """Return the states (B · D, E) after the last layer of an encoder-decoder's decoder.

        Soft tokens stand before the source, a prefix before the target. Raises InvalidRequest
        when a prefix is trained with gradient checkpointing, under which transformers drops it.
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
                    "The prefix of an encoder-decoder cannot be trained with gradient "
                    "checkpointing: switch that off.",
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
