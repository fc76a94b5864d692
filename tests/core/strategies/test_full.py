import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors import safe_open

from core.batching.rows import Row
from core.errors import InvalidRequest
from core.models.attention import use_packed_attention
from core.models.load import load_base
from core.objectives.supervised import Supervised
from core.spec.strategy import FullSpec, QloraSpec
from core.strategies.attach import attach
from tests.core import tiny
from tests.core.adapters.reference import batch, loss_curve


@pytest.mark.parametrize("model_type", [*tiny.DECODERS, *tiny.ENCODERS, *tiny.ENCODER_DECODERS])
def test_names_are_those_of_save_pretrained_with_tied_weights_once(tmp_path, model_type):
    model = tiny.tiny_model(model_type, labels=3 if model_type in tiny.ENCODERS else None)
    adapted = attach(model.requires_grad_(False), FullSpec(), None)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert adapted.state().keys() == stored.keys() - {"final_logits_bias"}
    for name, tensor in adapted.state().items():
        assert torch.equal(tensor, stored[name])


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt2", "t5"])
def test_every_weight_is_trained_as_by_a_plain_loop(model_type):
    adapted = attach(tiny.tiny_model(model_type).requires_grad_(False), FullSpec(), None)
    plain = tiny.tiny_model(model_type)
    before = adapted.state()
    ours = loss_curve(adapted.model, adapted.parameters, steps=5)
    assert ours == pytest.approx(loss_curve(plain, plain.parameters(), steps=5), abs=1e-4)
    for name, tensor in adapted.state().items():
        assert not torch.equal(tensor, before[name]), name


def test_full_model_counts_as_trained():
    adapted = attach(tiny.tiny_model(), FullSpec(), None)
    assert adapted.trainable_parameters == adapted.total_parameters
    assert adapted.config is None
    assert all(parameter.requires_grad for parameter in adapted.model.parameters())


def test_quantized_base_is_refused(base_of):
    base = load_base(base_of("llama"), torch.float32, torch.device("cpu"), quantization=QloraSpec())
    assert any(isinstance(module, Linear4bit) for module in base.modules())
    with pytest.raises(InvalidRequest, match="quantized") as caught:
        attach(base, FullSpec(), None)
    assert (caught.value.param, caught.value.code) == ("strategy.type", "quantised_base")


def test_forward_pass_is_that_of_the_base():
    base, adapted = tiny.tiny_model(), attach(tiny.tiny_model(), FullSpec(), None)
    assert torch.equal(base(**batch()).logits, adapted.model(**batch()).logits)


ROWS = [
    Row(line, tuple(range(line, line + length)), (False, False) + (True,) * (length - 2))
    for line, length in enumerate((9, 17, 5, 12, 30, 8, 21, 11), start=1)
]


@pytest.mark.parametrize("model_type", ["llama", "gemma2"])  # the head of Gemma is tied
def test_one_batch_of_eight_rows_equals_four_of_two(model_type):
    objective = Supervised(tokenizer=None)
    targets = sum(row.targets for row in ROWS)
    gradients = []
    for size in (8, 2):
        model = tiny.tiny_model(model_type)
        use_packed_attention(model)
        adapted = attach(model, FullSpec(), None)
        for start in range(0, len(ROWS), size):
            (objective.loss(adapted, ROWS[start : start + size]).loss / targets).backward()
        gradients.append({name: p.grad for name, p in adapted.trainable.items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6)
