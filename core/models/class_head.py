"""The classification heads of transformers' models, on the states of a packed batch.

The head is computed in its own dtype, which is fp32 where it is trained.
"""

# B texts, T tokens of the packed batch, E hidden size, N labels

from collections.abc import Sequence
from typing import assert_never

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.catalog.families import family_of


def class_logits(model: PreTrainedModel, states_TE: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the logits (B, N), fp32 or wider: those of the model's class for each text alone.

    `lengths` are those of the texts, which are consecutive in `states_TE`.
    """
    lengths_B = torch.tensor(lengths, device=states_TE.device)
    ends_B = lengths_B.cumsum(0)
    read = family_of(model.config.model_type).class_head
    match read:
        case "last token":
            logits_BN = _in_dtype_of(model.score, states_TE[ends_B - 1])
        case "pooler":
            first_BE = states_TE[ends_B - lengths_B]
            # the pooler reads the first token of (B, tokens, E)
            pooled_BE = _in_dtype_of(model.bert.pooler, first_BE[:, None])
            logits_BN = _in_dtype_of(model.classifier, model.dropout(pooled_BE))
        case "pooled states":
            if model.config.classifier_pooling == "mean":
                parts = states_TE.split(list(lengths))
                pooled_BE = torch.stack([part.mean(dim=0) for part in parts])
            else:
                pooled_BE = states_TE[ends_B - lengths_B]
            pooled_BE = model.drop(_in_dtype_of(model.head, pooled_BE))
            logits_BN = _in_dtype_of(model.classifier, pooled_BE)
        case None:
            raise TypeError(f"a {model.config.model_type} has no classification head")
        case _:
            assert_never(read)
    return logits_BN.to(torch.promote_types(logits_BN.dtype, torch.float32))


def _in_dtype_of(module: nn.Module, x: Tensor) -> Tensor:
    # not through its hooks, which make a trained copy return the dtype of its neighbors
    y: Tensor = module.forward(x.to(next(module.parameters()).dtype))
    return y
