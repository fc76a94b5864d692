"""Decides whether a run stores its activations for the backward pass or recomputes them."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.virtual import Prefix
from core.batching.rows import TrainingRow
from core.models.attention import LONGEST_STORED_SEGMENT
from core.models.memory import USABLE_SHARE as USABLE_SHARE
from core.models.memory import free_bytes as free_bytes
from core.spec.training import TrainingSpec


def use_gradient_checkpointing(
    adapted: AdaptedModel, rows: Sequence[TrainingRow], spec: TrainingSpec
) -> bool:
    """Enable gradient checkpointing if the job requires it; return whether it is enabled.

    Losses and gradients are the same either way. `auto` enables it only if `activation_bytes` and
    the optimizer's memory exceed the usable share of the free memory, and never for the prefix of
    an encoder-decoder, which transformers drops under checkpointing.
    """
    wanted = spec.gradient_checkpointing
    if wanted == "auto":
        drops_prefix = adapted.model.config.is_encoder_decoder and isinstance(
            adapted.virtual, Prefix
        )
        wanted = not drops_prefix and not _fits(adapted, rows, spec.micro_batch_tokens)
    if wanted:
        _checkpoint_layers(adapted.model)
    return wanted


def _checkpoint_layers(model: PreTrainedModel) -> None:
    # transformers renamed it; the old name warns in versions with the new one
    name = "activation_checkpointing_enable"
    enable = getattr(model, name, None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def activation_bytes(adapted: AdaptedModel, rows: Sequence[TrainingRow], budget_tokens: int) -> int:
    """Estimate the memory of the largest micro-batch for its backward pass.

    Per layer and token: 16 values of the hidden size (inputs of the linear layers, norms, queries,
    keys, values, their rotations), 4 of the inner size of the feed-forward network, and on a CPU
    the probabilities of every head over the row, if they are stored; each in the dtype of the
    model. The number of tokens is the budget, but at least the longest row and at most all rows.
    """
    config = adapted.model.config.get_text_config()
    lengths = [row.length for row in rows]
    longest = max(lengths)
    tokens = min(max(budget_tokens, longest), sum(lengths))
    hidden = config.hidden_size
    inner = _field(config, ("intermediate_size", "d_ff", "encoder_ffn_dim", "n_inner"), 4 * hidden)
    layers = config.num_hidden_layers * (2 if config.is_encoder_decoder else 1)
    values = 16 * hidden + 4 * inner
    if adapted.model.device.type == "cpu" and longest <= LONGEST_STORED_SEGMENT:
        values += config.num_attention_heads * longest
    return tokens * layers * values * adapted.model.dtype.itemsize


def _fits(adapted: AdaptedModel, rows: Sequence[TrainingRow], budget_tokens: int) -> bool:
    free = free_bytes(adapted.model.device)
    # in fp32: the gradient, two moments, and a master copy of 16-bit weights
    for_weights = 16 * adapted.trainable_parameters
    needed = activation_bytes(adapted, rows, budget_tokens) + for_weights
    return free is None or needed <= USABLE_SHARE * free


def _field(config: object, names: Sequence[str], otherwise: int) -> int:
    """Return the first of these fields that is set in the config."""
    return next((value for name in names if (value := getattr(config, name, None))), otherwise)
