"""The CPU threads of a run: as many as its operations are long enough for."""

import torch
from transformers import PreTrainedConfig

from core.catalog.families import hidden_size
from core.cores import useful_threads


def limit_threads(config: PreTrainedConfig, tokens_per_pass: float) -> None:
    """Lower torch's number of threads if products of `tokens_per_pass` tokens are short.

    It stays lower in this process.
    """
    width = hidden_size(config.to_dict())
    assert width is not None, "the configs of all families have the field of their width"
    torch.set_num_threads(useful_threads(torch.get_num_threads(), width, tokens_per_pass))
