"""Whether a run keeps its activations for the backward pass or computes them again."""

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
    """Switch gradient checkpointing on if the job asks for it; say whether it is on.

    Losses and gradients are the same with and without. `auto` is on only when `activation_bytes`
    and what the optimiser is going to need are more than the usable share of the free memory, and
    never for the prefix of an encoder-decoder, which transformers drops under checkpointing.
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
    # transformers has renamed it; the old name warns where there is a new one
    name = "activation_checkpointing_enable"
    enable = getattr(model, name, None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def activation_bytes(adapted: AdaptedModel, rows: Sequence[TrainingRow], budget_tokens: int) -> int:
    """Estimate what the largest micro-batch keeps for its backward pass.

    Per layer and token: 16 values of the hidden size (inputs of the linear layers, norms, queries,
    keys, values, their rotations), 4 of the inner size of the feed-forward network, and on a CPU
    the probabilities of every head over the row, where they are stored; each in the dtype of the
    model. The tokens are those of the budget, of the longest row if that is longer, or of all rows
    if they are fewer.
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
    # gradient, two moments and, beside weights of 16 bits, a master copy: fp32 each
    for_weights = 16 * adapted.trainable_parameters
    needed = activation_bytes(adapted, rows, budget_tokens) + for_weights
    return free is None or needed <= USABLE_SHARE * free


def _field(config: object, names: Sequence[str], otherwise: int) -> int:
    """Return the first of these fields that the config has and fills."""
    return next((value for name in names if (value := getattr(config, name, None))), otherwise)
