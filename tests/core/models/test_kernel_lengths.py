"""Padding to few lengths, and what it must not change."""

import pytest
import torch
from transformers import BertConfig, LlamaConfig
from transformers.models.auto import AutoModel

from core.adapters.adapted import AdaptedModel
from core.batching.packing import lay_out
from core.models import kernel_lengths
from core.models.attention import AttentionRule, attend, use_packed_attention
from core.models.kernel_lengths import batch_padding, segment_padding

CPU = torch.device("cpu")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}


def test_batches_have_few_lengths_close_to_their_own():
    lengths = {tokens: tokens + batch_padding(tokens, CPU) for tokens in range(4096)}
    assert all(tokens <= length < tokens * 1.125 + 1 for tokens, length in lengths.items())
    assert len({length for tokens, length in lengths.items() if 512 <= tokens < 1024}) == 9
    assert len(set(lengths.values())) < 120


def test_only_where_kernels_are_built():
    cuda = torch.device("cuda")
    assert batch_padding(701, cuda) == segment_padding(33, cuda, torch.bfloat16) == 0
    assert segment_padding(33, CPU, torch.float32) == 0


@pytest.mark.parametrize(
    "rule",
    [
        AttentionRule(causal=True, window=None, scaling=0.35, softcap=None, dropout=0.0),
        AttentionRule(causal=False, window=None, scaling=0.35, softcap=None, dropout=0.0),
        AttentionRule(causal=True, window=9, scaling=0.35, softcap=None, dropout=0.0),
        AttentionRule(causal=False, window=9, scaling=0.35, softcap=None, dropout=0.0),
    ],
    ids=["causal", "both directions", "causal window", "window in both directions"],
)
@pytest.mark.parametrize("prefix", [0, 5])
def test_attention_is_that_without_padding(monkeypatch, rule, prefix):
    generator = torch.Generator().manual_seed(0)
    query, key, value, grad = (
        torch.randn(1, 2, length, 8, generator=generator, dtype=torch.float32).requires_grad_()
        for length in (41, 41 + prefix, 41 + prefix, 41)
    )

    def gradients() -> list[torch.Tensor]:
        output = attend(query, key, value, rule)
        return [output, *torch.autograd.grad(output, (query, key, value), grad)]

    plain = gradients()
    monkeypatch.setattr(kernel_lengths, "_segments_need_kernels", lambda device, dtype: True)
    for padded, expected in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(padded, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL, intermediate_size=48),
        BertConfig(**SMALL, intermediate_size=48),
    ],
    ids=["Llama", "BERT"],
)
def test_states_are_those_without_padding(monkeypatch, config):
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    use_packed_attention(model)
    adapted = AdaptedModel(_Wrapped(model), {}, None)
    batch = lay_out([list(range(1, 40)), list(range(3, 14)), [5]], CPU)
    with monkeypatch.context() as patch:
        patch.setattr(kernel_lengths, "_batches_need_kernels", lambda device: False)
        plain = adapted.hidden_states(batch)
    assert batch_padding(51, CPU) == 1
    padded = adapted.hidden_states(batch)
    assert padded.shape == plain.shape
    torch.testing.assert_close(padded, plain, atol=1e-5, rtol=1e-5)


class _Wrapped(torch.nn.Module):
    """A backbone where a model with a head is expected."""

    def __init__(self, backbone) -> None:
        super().__init__()
        self.base_model = backbone
        self.device, self.dtype = backbone.device, backbone.dtype
