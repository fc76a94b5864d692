"""Merged weights are sums in fp32 that are rounded once, and tied weights part."""

import pytest
import torch

from core.adapters.lora import LoraLinear
from core.artifacts.merge import merge
from core.artifacts.quantize import layers_to_quantize, quantize
from core.models.load import load_base
from core.spec.strategy import BottleneckSpec, LoraSpec, PrefixSpec
from core.strategies.attach import attach
from tests.core.tiny import save_base, tiny_tokenizer

CPU = torch.device("cpu")


def adapted(tmp_path, strategy, dtype=torch.float32, **changes):
    """A strategy with weights that change something, not installed."""
    base = save_base(tmp_path / "base", **changes)
    found = attach(load_base(base, dtype, CPU), strategy, tiny_tokenizer(), prepack=False)
    found.remove()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in found.parameters:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return found


@pytest.mark.parametrize("use_dora", [False, True])
def test_the_sum_is_taken_in_fp32_and_rounded_once(tmp_path, use_dora):
    before = adapted(tmp_path, LoraSpec(rank=4, alpha=8, use_dora=use_dora), torch.bfloat16)
    path = "model.layers.1.mlp.up_proj"
    layer = before.replaced[path]
    sums_OI = layer.base_layer.weight.float() + 2 * layer.lora_B @ layer.lora_A
    if use_dora:
        sums_OI *= (layer.lora_magnitude_vector / sums_OI.norm(dim=1))[:, None]
    weight_OI = merge(before).get_submodule(path).weight
    assert weight_OI.dtype == torch.bfloat16 and not weight_OI.requires_grad
    torch.testing.assert_close(weight_OI, sums_OI.detach().to(torch.bfloat16), rtol=0, atol=1e-6)


def test_a_head_that_was_trained_whole_is_tied_no_more(tmp_path):
    strategy = LoraSpec(rank=2, modules_to_save=("lm_head",))
    before = adapted(tmp_path, strategy, torch.bfloat16, tie_word_embeddings=True)
    embeddings_VE = before.model.get_input_embeddings().weight
    assert before.model.lm_head.weight is embeddings_VE
    untouched = embeddings_VE.clone()
    trained = before.replaced["lm_head"].weight.detach().to(torch.bfloat16)
    model = merge(before)
    assert torch.equal(model.lm_head.weight, trained)
    assert torch.equal(model.get_input_embeddings().weight, untouched)
    assert not torch.equal(trained, untouched)


@pytest.mark.parametrize("strategy", [BottleneckSpec(reduction_factor=4), PrefixSpec()])
def test_what_is_no_change_of_weights_is_no_merge(tmp_path, strategy):
    with pytest.raises(ValueError, match="weight"):
        merge(adapted(tmp_path, strategy))


def test_a_weight_that_the_base_lacks_is_no_merge(tmp_path, monkeypatch):
    before = adapted(tmp_path, LoraSpec(rank=2))
    monkeypatch.setattr(LoraLinear, "merged", lambda layer: {"bias": torch.zeros(1)})
    with pytest.raises(ValueError, match="Linear of the base has no bias"):
        merge(before)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_in_memory_is_what_is_quantized_while_it_is_loaded(tmp_path, quantization):
    base = save_base(tmp_path / "base")
    model = load_base(base, torch.bfloat16, CPU)
    quantize(model, quantization, CPU)
    spec = base.model_copy(update={"quantization": quantization})
    loaded = load_base(spec, torch.bfloat16, CPU)
    assert not layers_to_quantize(model)
    found, expected = dict(model.named_parameters()), dict(loaded.named_parameters())
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name
    tokens = torch.arange(12)[None]
    with torch.inference_mode():
        assert torch.equal(model(tokens).logits, loaded(tokens).logits)
