import peft
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from core.catalog.families import FAMILIES
from core.models import attention
from core.models.attention import AttentionRule, attend, use_packed_attention
from tests.core import tiny

PACKED = sorted(name for name, family in FAMILIES.items() if family.layout == "packed")
LENGTHS = (7, 23, 1, 12, 40)
PREFIX_TOKENS = 6
WINDOWS = {
    "mistral": {"sliding_window": 5},
    "qwen2": {"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 1},
    "gemma2": {"sliding_window": 5, "attn_logit_softcapping": 0.3},
    "gemma3_text": {"sliding_window": 5},
    "phi3": {"sliding_window": 5},
    "modernbert": {"local_attention": 10},
}
FULL = ("llama", "gpt2", "bert")
VARIANTS = [*WINDOWS.items(), *((model_type, {}) for model_type in FULL)]


def documents(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 256, (n,), generator=generator) for n in LENGTHS]


def packed(rows, offset=0):
    return {
        "input_ids": torch.cat(rows)[None],
        "position_ids": offset + torch.cat([torch.arange(len(row)) for row in rows])[None],
        "segment_lengths": tuple(len(row) for row in rows),
    }


def states_of(backbone, **inputs):
    options = {} if backbone.config.model_type == "modernbert" else {"use_cache": False}
    return backbone(**inputs, **options).last_hidden_state[0]


@pytest.mark.parametrize("longest_stored", [512, 3], ids=["stored", "fused"])
@pytest.mark.parametrize(("model_type", "changes"), VARIANTS, ids=[name for name, _ in VARIANTS])
def test_packed_states_and_gradients_equal_single_documents(
    model_type, changes, longest_stored, monkeypatch
):
    monkeypatch.setattr(attention, "LONGEST_STORED_SEGMENT", longest_stored)
    backbone = tiny.tiny_model(model_type, **changes).base_model
    rows = documents()
    single = torch.cat([states_of(backbone, input_ids=row[None]) for row in rows])
    single.square().mean().backward()
    expected = {name: p.grad.clone() for name, p in backbone.named_parameters()}
    backbone.zero_grad()

    use_packed_attention(backbone)
    together = states_of(backbone, **packed(rows))
    together.square().mean().backward()
    torch.testing.assert_close(together, single, rtol=1e-5, atol=1e-5)
    for name, parameter in backbone.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-6)


def test_every_packed_family_is_compared():
    assert sorted(name for name, _ in VARIANTS) == PACKED


@pytest.mark.parametrize("model_type", WINDOWS)
def test_windows_of_these_tests_hide_something(model_type):
    rows = documents()
    with_window = tiny.tiny_model(model_type, **WINDOWS[model_type]).base_model
    without = tiny.tiny_model(
        model_type,
        **{
            name: 1000 if name in ("sliding_window", "local_attention") else value
            for name, value in WINDOWS[model_type].items()
        },
    ).base_model
    for backbone in (with_window, without):
        use_packed_attention(backbone)
    states = [states_of(backbone, **packed(rows)) for backbone in (with_window, without)]
    assert (states[0] - states[1]).abs().max() > 1e-2


@pytest.mark.parametrize("model_type", ["llama", "modernbert"])
def test_other_documents_cannot_change_a_documents_states(model_type):
    backbone = tiny.tiny_model(model_type).base_model
    use_packed_attention(backbone)
    rows = documents()
    before = states_of(backbone, **packed(rows))
    rows[0] = rows[0].flip(0)
    after = states_of(backbone, **packed(rows))
    assert torch.equal(before[LENGTHS[0] :], after[LENGTHS[0] :])
    assert not torch.equal(before[: LENGTHS[0]], after[: LENGTHS[0]])


class Prefix(nn.Module):
    """Keys and values as PEFT lays them out: (P, layers · 2 · K · D)."""

    def __init__(self, weight, layers, heads):
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.shape = (len(weight), layers, 2, heads, -1)

    def layer(self, index):
        key_PKD, value_PKD = self.weight.view(self.shape)[:, index].unbind(dim=1)
        return key_PKD.transpose(0, 1), value_PKD.transpose(0, 1)


def peft_model(model_type, changes):
    """A model with PEFT's prefix of random keys and values, and its weight."""
    is_encoder = model_type in tiny.ENCODERS
    model = tiny.tiny_model(model_type, labels=3 if is_encoder else None, **changes)
    task = "SEQ_CLS" if is_encoder else "CAUSAL_LM"
    config = peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=PREFIX_TOKENS)
    with_prefix = peft.get_peft_model(model, config)
    weight = with_prefix.prompt_encoder["default"].embedding.weight
    torch.manual_seed(5)
    nn.init.normal_(weight, std=0.7)
    return model, with_prefix, weight


@pytest.mark.parametrize("longest_stored", [512, 3], ids=["stored", "fused"])
@pytest.mark.parametrize(
    ("model_type", "changes"),
    [variant for variant in VARIANTS if FAMILIES[variant[0]].takes_prefix],
    ids=[name for name, _ in VARIANTS if FAMILIES[name].takes_prefix],
)
def test_prefix_equals_that_of_peft(model_type, changes, longest_stored, monkeypatch):
    monkeypatch.setattr(attention, "LONGEST_STORED_SEGMENT", longest_stored)
    rows = documents()
    model, with_prefix, weight = peft_model(model_type, changes)
    last_states = []
    handle = model.base_model.register_forward_hook(
        lambda module, inputs, output: last_states.append(output.last_hidden_state[0])
    )
    for row in rows:
        with_prefix(input_ids=row[None], attention_mask=torch.ones_like(row[None]))
    handle.remove()
    expected = torch.cat(last_states)
    expected.square().mean().backward()

    config = model.config
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    prefix = Prefix(weight, config.num_hidden_layers, heads)
    use_packed_attention(model)
    together = states_of(model.base_model, **packed(rows, PREFIX_TOKENS), prefix=prefix)
    together.square().mean().backward()
    torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prefix.weight.grad, weight.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt2", "bert"])
def test_prefix_trains_the_same_under_gradient_checkpointing(model_type):
    backbone = tiny.tiny_model(model_type).base_model.train()
    use_packed_attention(backbone)
    heads = getattr(backbone.config, "num_key_value_heads", backbone.config.num_attention_heads)
    weight = torch.randn(PREFIX_TOKENS, 2 * 2 * heads * 8)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            backbone.activation_checkpointing_enable({"use_reentrant": False})
        prefix = Prefix(weight, layers=2, heads=heads)
        states = states_of(backbone, **packed(documents(), PREFIX_TOKENS), prefix=prefix)
        states.square().mean().backward()
        gradients.append(prefix.weight.grad)
    assert torch.equal(*gradients)


def test_prefix_is_seen_by_the_encoder_that_peft_cannot_give_one():
    backbone = tiny.tiny_model("modernbert").base_model
    use_packed_attention(backbone)
    rows = documents()
    prefix = Prefix(torch.randn(PREFIX_TOKENS, 2 * 2 * 4 * 8), layers=2, heads=4)
    together = states_of(backbone, **packed(rows, PREFIX_TOKENS), prefix=prefix)
    alone = torch.cat(
        [states_of(backbone, **packed([row], PREFIX_TOKENS), prefix=prefix) for row in rows]
    )
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    together.sum().backward()
    assert prefix.weight.grad.abs().min() > 0


@pytest.mark.parametrize("model_type", ["gpt2", "gemma2", "bert"])
def test_attention_dropout_is_that_of_the_config_in_training_only(model_type):
    name = {"gpt2": "attn_pdrop", "bert": "attention_probs_dropout_prob"}
    changes = {name.get(model_type, "attention_dropout"): 0.5}
    backbone = tiny.tiny_model(model_type, **changes).base_model
    use_packed_attention(backbone)
    inputs = packed(documents())
    assert torch.equal(states_of(backbone, **inputs), states_of(backbone, **inputs))
    backbone.train()
    torch.manual_seed(0)
    first = states_of(backbone, **inputs)
    assert not torch.equal(first, states_of(backbone, **inputs))
    torch.manual_seed(0)
    assert torch.equal(first, states_of(backbone, **inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_attention_are_those_of_torch(dtype):
    generator = torch.Generator().manual_seed(0)
    shape = (1, 6, 41, 8)
    query, key, value, grad = (
        torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(4)
    )
    rule = AttentionRule(True, None, 0.35, None, 0.0)
    output = attend(query, key, value, rule)
    found = torch.autograd.grad(output, (query, key, value), grad)
    reference = scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.35)
    expected = torch.autograd.grad(reference, (query, key, value), grad)
    tolerance = 5e-2 if dtype is torch.bfloat16 else 1e-5
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
