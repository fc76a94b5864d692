"""Measures the cost of 16 bits for a base: a pass over fixed texts in fp32, and one in 16 bits.

For a generating base it is KL(fp32 || 16 bits) of the next token, which covers the complete
distribution. For an encoder, the states are compared.
"""

# B texts, T tokens of the longest, P real tokens of all, E hidden size, V vocabulary, C a chunk

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from core.batching.render import render_examples
from core.batching.rows import InvalidRow
from core.catalog.families import family_of
from core.models.load import context_of, load_base, load_config, load_tokenizer
from core.models.output_head import output_head
from core.models.precision import dtype_of
from core.models.precision_texts import CHATS, LONGEST_TEXT, TEXTS
from core.spec.base_model import BaseModelSpec
from core.spec.precision import PrecisionCost, SixteenBits

CHUNK_TOKENS = 64


@torch.inference_mode()
def measure_cost(base: BaseModelSpec, format_: SixteenBits, device: torch.device) -> PrecisionCost:
    """Return the cost of `format_` for the base; raises the errors of `load_base`.

    The base must not be quantized. Needs memory for its fp32 weights and, twice, for the logits of
    about 300 tokens. torch's default dtype and generators do not change, so other threads may
    compute at the same time.
    """
    config, tokenizer = load_config(base), load_tokenizer(base)
    longest = min(LONGEST_TEXT, context_of(config))
    family = family_of(config.model_type)
    batch = read_texts(tokenizer, longest, with_chats=family.kind == "decoder").to(device)
    with torch.random.fork_rng(devices=[]):
        # load in fp32: building a model in another dtype changes the default of all threads
        model = load_base(base, torch.float32, device, task=family.own_task)
    exact = outputs_of(model, batch)
    cast(model, dtype_of(format_))
    rough = outputs_of(model, batch)
    tokens = len(exact)
    if not rough.isfinite().all():
        return PrecisionCost(format=format_, tokens=tokens, is_finite=False)
    if family.kind == "encoder":
        error_P = (rough - exact).norm(dim=-1) / exact.norm(dim=-1)
        return PrecisionCost(format=format_, tokens=tokens, state_error=float(error_P.mean()))
    kl_P, changed = _divergence(exact, rough)
    return PrecisionCost(
        format=format_,
        tokens=tokens,
        kl_nats=float(kl_P.mean()),
        kl_p99_nats=float(kl_P.quantile(0.99)),
        changed_share=changed / tokens,
    )


@dataclass(frozen=True)
class Batch:
    """A batch of texts, padded at the end."""

    ids_BT: Tensor
    mask_BT: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.ids_BT.to(device), self.mask_BT.to(device))


def read_texts(tokenizer: PreTrainedTokenizerFast, longest: int, *, with_chats: bool) -> Batch:
    """Return the tokenized texts; conversations only if the base has a chat template."""
    texts = [tokenizer(text)["input_ids"] for text in TEXTS]
    if with_chats:
        # conversations are optional: the base may have no template, or one that rejects them
        with suppress(InvalidRow):
            rows = render_examples(tokenizer, list(enumerate(CHATS)))
            texts += [list(row.tokens) for row in rows]
    texts = [text[:longest] for text in texts if text]
    width = max(map(len, texts))
    ids = [text + [0] * (width - len(text)) for text in texts]
    mask = [[1] * len(text) + [0] * (width - len(text)) for text in texts]
    return Batch(torch.tensor(ids), torch.tensor(mask))


def cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Convert a model loaded in fp32 to its state when loaded in `dtype`.

    `model.to` would also round the frequencies of rotary positions, which are not stored, and the
    layers that a family keeps in fp32.
    """
    kept = set(model._keep_in_fp32_modules_strict or ())
    if dtype == torch.float16:
        kept |= set(model._keep_in_fp32_modules or ())
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() and not kept & set(name.split(".")):
            tensor.data = tensor.data.to(dtype)


def outputs_of(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return fp32 logits (P, V) of a generating model, or the last states (P, E) of an encoder."""
    arguments = {"input_ids": batch.ids_BT, "attention_mask": batch.mask_BT}
    is_real_BT = batch.mask_BT.bool()
    if model.config.is_encoder_decoder:  # source and target are the same text
        shifted_BT = batch.ids_BT.roll(1, dims=1)
        shifted_BT[:, 0] = model.config.decoder_start_token_id
        logits_BTV = model(**arguments, decoder_input_ids=shifted_BT).logits
        return logits_BTV[is_real_BT].float()
    states_PE = model.base_model(**arguments).last_hidden_state[is_real_BT]
    if family_of(model.config.model_type).kind == "encoder":
        return states_PE.float()
    head = output_head(model).for_states(states_PE)
    return torch.cat([head.logits(part_CE).float() for part_CE in states_PE.split(CHUNK_TOKENS)])


def _divergence(exact_PV: Tensor, rough_PV: Tensor) -> tuple[Tensor, int]:
    """Return KL(exact || rough) (P,) in nats, and the number of changed most likely tokens."""
    divergences, changed = [], 0
    chunks = zip(exact_PV.split(CHUNK_TOKENS), rough_PV.split(CHUNK_TOKENS), strict=True)
    for exact_CV, rough_CV in chunks:
        log_p_CV, log_q_CV = exact_CV.log_softmax(dim=-1), rough_CV.log_softmax(dim=-1)
        divergences.append((log_p_CV.exp() * (log_p_CV - log_q_CV)).sum(dim=-1).clamp(min=0))
        changed += int((exact_CV.argmax(dim=-1) != rough_CV.argmax(dim=-1)).sum())
    return torch.cat(divergences), changed
