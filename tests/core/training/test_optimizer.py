import pytest
import torch
from transformers import Trainer

from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.strategy import FullSpec, LoraSpec, QloraSpec
from core.spec.training import TrainingSpec
from core.strategies.attach import attach
from core.training.optimizer import build_optimizer
from core.training.tensor_tree import flatten, unflatten
from tests.core import tiny

TOKENS_BT = torch.randint(5, 250, (4, 8), generator=torch.Generator().manual_seed(1))
LORA, FULL = LoraSpec(rank=16), FullSpec()
FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16


def start(strategy=LORA, dtype=FP32, **training):
    """Return a freshly attached model and its optimizer."""
    torch.manual_seed(0)
    adapted = attach(tiny.tiny_model().to(dtype).requires_grad_(False), strategy, None)
    base = BaseModelSpec(id="tiny", source="tiny")
    spec = JobSpec(base=base, strategy=strategy, training=TrainingSpec(**training), seed=0)
    return adapted, build_optimizer(adapted, spec, dtype)


def add_gradients(adapted, optimizer, rows=TOKENS_BT, share=1.0):
    loss = adapted.model.train()(input_ids=rows, labels=rows).loss
    optimizer.scale(loss * share).backward()


def take_steps(adapted, optimizer, numbers):
    for number in numbers:
        add_gradients(adapted, optimizer, TOKENS_BT[number % 3 :])
        optimizer.clip(1.0)
        assert optimizer.step(1e-2 / (number + 1))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["auto", "adamw", "paged_adamw"])
def test_steps_are_those_of_adamw(name, weight_decay):
    adapted, optimizer = start(optimizer=name, weight_decay=weight_decay)
    take_steps(adapted, optimizer, range(5))

    other, _ = start()
    reference = torch.optim.AdamW(other.parameters, weight_decay=weight_decay)
    for number in range(5):
        rows = TOKENS_BT[number % 3 :]
        other.model(input_ids=rows, labels=rows).loss.backward()
        torch.nn.utils.clip_grad_norm_(other.parameters, 1.0)
        reference.param_groups[0]["lr"] = 1e-2 / (number + 1)
        reference.step()
        reference.zero_grad()
    for ours, theirs in zip(adapted.parameters, other.parameters, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("model_type", [*tiny.DECODERS, *tiny.ENCODERS, *tiny.ENCODER_DECODERS])
def test_weights_that_decay_are_those_of_hugging_faces_trainer(model_type):
    model = tiny.tiny_model(model_type, labels=2 if model_type in tiny.ENCODERS else None)
    adapted = attach(model, FULL, None)
    base = BaseModelSpec(id="tiny", source="tiny")
    training = TrainingSpec(weight_decay=0.5)
    spec = JobSpec(base=base, strategy=FULL, training=training, seed=0)
    groups = build_optimizer(adapted, spec, FP32)._inner.param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] == 0.5 for p in group["params"]}
    expected = set(Trainer.get_decay_parameter_names(None, model))
    assert {n for n, p in adapted.trainable.items() if id(p) in decayed} == {
        name for name in adapted.trainable if name in expected
    }


RESUMED = [
    (LORA, FP32, "adamw"),
    (QloraSpec(rank=16), FP32, "paged_adamw"),
    (FULL, FP32, "adamw"),
    (FULL, FP32, "paged_adamw_8bit"),
    (FULL, BF16, "adamw"),
    (FULL, BF16, "paged_adamw_8bit"),
    (FULL, FP16, "adamw"),
]


@pytest.mark.parametrize(("strategy", "dtype", "name"), RESUMED)
def test_resumed_steps_equal_uninterrupted_ones_bit_for_bit(strategy, dtype, name):
    whole, optimizer = start(strategy, dtype, optimizer=name, weight_decay=0.01)
    take_steps(whole, optimizer, range(6))

    first, optimizer = start(strategy, dtype, optimizer=name, weight_decay=0.01)
    take_steps(first, optimizer, range(3))
    weights, (plain, tensors) = first.state(), flatten(optimizer.state())

    second, optimizer = start(strategy, dtype, optimizer=name, weight_decay=0.01)
    with torch.no_grad():
        for weight_name, weight in second.trainable.items():
            weight.copy_(weights[weight_name])
    optimizer.load(unflatten(plain, tensors))
    take_steps(second, optimizer, range(3, 6))
    expected = whole.state()
    for weight_name, weight in second.state().items():
        assert torch.equal(weight, expected[weight_name]), weight_name


def test_state_of_eight_bits_is_that_of_large_weights_only():
    adapted, optimizer = start(FULL, optimizer="paged_adamw_8bit")
    take_steps(adapted, optimizer, range(1))
    moments = optimizer.state()["moments"]
    assert moments["model.embed_tokens.weight"]["state1"].dtype == torch.uint8
    assert moments["model.norm.weight"]["state1"].dtype == FP32


def test_gradients_of_bf16_weights_add_up_in_fp32():
    adapted, optimizer = start(FULL, BF16)
    add_gradients(adapted, optimizer, share=1.0)
    single = {name: weight.grad.clone() for name, weight in adapted.trainable.items()}
    optimizer.zero()
    assert all(weight.grad is None for weight in adapted.parameters)
    for _ in range(256):  # in bf16 the sum would stop growing on the way
        add_gradients(adapted, optimizer, share=1 / 256)
    for name, weight in adapted.trainable.items():
        assert weight.grad.dtype == FP32
        torch.testing.assert_close(weight.grad, single[name], rtol=1e-2, atol=1e-4)


def test_bf16_weights_follow_masters_that_keep_small_steps():
    adapted, optimizer = start(FULL, BF16)
    before = adapted.state()["model.norm.weight"].float()
    for _ in range(20):
        add_gradients(adapted, optimizer)
        optimizer.clip(1.0)
        optimizer.step(1e-3)  # a quarter of what bf16 can tell apart at 1
    after = adapted.state()["model.norm.weight"].float()
    master = optimizer.state()["masters"]["model.norm.weight"]
    assert torch.equal(after, master.bfloat16().float())
    assert (after - before).abs().max() > 0.01


def test_step_whose_gradients_do_not_fit_fp16_is_skipped_with_a_lower_scale():
    adapted, optimizer = start(FULL, FP16)
    take_steps(adapted, optimizer, range(1))
    before, scale = adapted.state(), optimizer.state()["scaler"]["scale"]
    add_gradients(adapted, optimizer, share=1e6)
    assert not torch.isfinite(torch.tensor(optimizer.clip(1.0)))
    assert not optimizer.step(1e-2)
    assert optimizer.state()["scaler"]["scale"] == scale / 2
    for name, weight in adapted.state().items():
        assert torch.equal(weight, before[name])
    assert all(weight.grad is None for weight in adapted.parameters)
    take_steps(adapted, optimizer, range(1, 2))


def test_norm_before_clipping_is_that_of_the_unscaled_gradients():
    norms = []
    for dtype in (FP32, FP16):
        adapted, optimizer = start(FULL, dtype)
        add_gradients(adapted, optimizer)
        norms.append(optimizer.clip(0.1))
        left = torch.stack([p.grad.norm() for p in adapted.parameters]).norm()
        assert left.item() == pytest.approx(0.1, rel=1e-3)
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)
