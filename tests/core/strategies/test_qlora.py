"""QLoRA and LoRA on bases that are stored quantized, beside PEFT on bitsandbytes' own layers."""

import peft
import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from core.adapters.lora import LoraLinear
from core.models.load import load_base
from core.spec.base_model import BaseModelSpec
from core.spec.strategy import LoraSpec, QloraSpec
from core.strategies.attach import attach
from tests.core.adapters.reference import (
    TOKENS_BT,
    batch,
    disturb,
    gradients_of,
    logits_and_gradients,
    loss_curve,
)

CPU, FP32 = torch.device("cpu"), torch.float32
WIDE = {"hidden_size": 64, "head_dim": 16}  # bitsandbytes packs 32 rows for inference on a CPU
QLORA = QloraSpec(rank=4, alpha=8)


def task_of(model_type):
    return "seq2seq" if model_type in ("t5", "bart") else "generation"


@pytest.fixture
def quantized(base_of):
    """Return a builder of a quantized base with an adapter, and of the same under PEFT."""

    def build(spec, model_type="llama", **changes):
        base = base_of(model_type, **changes)
        models = [
            load_base(base, FP32, CPU, task=task_of(model_type), quantization=QLORA)
            for _ in range(2)
        ]
        torch.manual_seed(3)
        adapted = attach(models[0], spec, None)
        torch.manual_seed(3)
        return adapted, peft.get_peft_model(models[1], adapted.config)

    return build


def require_equal(adapted, reference):
    expected = peft.get_peft_model_state_dict(reference)
    assert adapted.state().keys() == expected.keys()
    for name, tensor in adapted.state().items():
        assert torch.equal(tensor, expected[name]), name
    disturb(adapted, reference)
    ours, theirs = (logits_and_gradients(model) for model in (adapted.model, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)
    for name, gradient in gradients_of(reference).items():
        torch.testing.assert_close(adapted.trainable[name].grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "phi3", "t5"])
def test_weights_logits_and_gradients_equal_peft(quantized, model_type):
    adapted, reference = quantized(QLORA, model_type)
    layers = [m for m in adapted.model.modules() if isinstance(m, LoraLinear)]
    assert layers and any(isinstance(layer.base_layer, Linear4bit) for layer in layers)
    require_equal(adapted, reference)


def test_dora_equals_peft(quantized):
    require_equal(*quantized(QLORA.model_copy(update={"use_dora": True})))


def test_loss_curve_equals_peft(quantized):
    adapted, reference = quantized(QLORA)
    ours = loss_curve(adapted.model, adapted.parameters)
    trained = [p for p in reference.parameters() if p.requires_grad]
    assert ours == pytest.approx(loss_curve(reference, trained), abs=1e-4)
    assert ours[-1] < ours[0]


def test_no_dense_copy_of_the_base_is_kept(quantized):
    adapted, _ = quantized(QLORA)
    saved = []

    def note(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = adapted.model.train()(**batch()).loss
    dense = {
        (layer.base_layer.out_features, layer.base_layer.in_features)
        for layer in adapted.model.modules()
        if isinstance(layer, LoraLinear)
    }
    assert loss.requires_grad and saved
    assert not dense & {tuple(tensor.shape) for tensor in saved}


@pytest.mark.parametrize("names", ["all-linear", ("q_proj",)])
def test_validation_changes_no_gradient(base_of, names):
    """On a CPU bitsandbytes lays weights out anew for inference, which stops all gradients."""
    base = base_of("llama", **WIDE)
    model = load_base(base, torch.bfloat16, CPU, quantization=QLORA)
    adapted = attach(model, QloraSpec(rank=4, target_modules=names), None)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape))
    gradients = []
    for _ in range(2):
        logits_and_gradients(adapted.model)
        gradients.append([parameter.grad.clone() for parameter in adapted.parameters])
        adapted.model.zero_grad()
        with torch.no_grad():
            adapted.model.eval()(TOKENS_BT)
            with adapted.off():
                adapted.model(TOKENS_BT)
    for before, after in zip(*gradients, strict=True):
        assert torch.equal(before, after)
        assert before.abs().max() > 0


@pytest.mark.parametrize(
    ("config", "layer_class"),
    [
        (BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"), Linear4bit),
        (BitsAndBytesConfig(load_in_8bit=True), Linear8bitLt),
    ],
    ids=["4 bits", "8 bits"],
)
def test_lora_on_a_base_that_is_stored_quantized_equals_peft(
    base_of, tmp_path, config, layer_class
):
    dense = base_of("llama")
    stored = BaseModelSpec(id="stored", source=str(tmp_path / "quantized"))
    AutoModelForCausalLM.from_pretrained(
        dense.source, dtype=FP32, quantization_config=config
    ).save_pretrained(stored.source)
    models = [load_base(stored, FP32, CPU) for _ in range(2)]
    torch.manual_seed(3)
    adapted = attach(models[0], LoraSpec(rank=4, alpha=8), None)
    torch.manual_seed(3)
    reference = peft.get_peft_model(models[1], adapted.config)
    assert any(isinstance(module, layer_class) for module in adapted.model.modules())
    require_equal(adapted, reference)


def test_weights_of_four_bits_count_as_weights(base_of):
    base = base_of("llama")
    counts = [
        attach(load_base(base, FP32, CPU, quantization=q), QLORA, None).total_parameters
        for q in (QLORA, None)
    ]
    assert counts[0] == counts[1]


def test_adapter_also_fits_the_base_before_quantization(base_of):
    adapted = attach(load_base(base_of("llama"), FP32, CPU), QLORA, None)
    assert adapted.model(**batch()).logits.isfinite().all()
