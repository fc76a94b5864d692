"""The CPU threads of a run: as many as its operations are long enough for."""

import torch
from transformers import PreTrainedConfig

from core.catalog.families import hidden_size

FLOPS_PER_THREAD = 50e6
"""The shortest part of a product that is worth a thread, which takes some 20 us to wake."""


def limit_threads(config: PreTrainedConfig, tokens_per_pass: float) -> None:
    """Lower torch's number of threads if products of `tokens_per_pass` tokens are short.

    It stays lower in this process. The number depends on the job, its base and data, and the
    cores, but on no measurement: some kernels round differently with another number of threads, so
    a measured number would break "same seed, same weights".
    """
    width = hidden_size(config.to_dict())
    assert width is not None, "the configs of all families have the field of their width"
    useful = int(2 * tokens_per_pass * width**2 / FLOPS_PER_THREAD)
    torch.set_num_threads(max(1, min(torch.get_num_threads(), useful)))
