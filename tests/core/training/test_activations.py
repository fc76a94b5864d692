import pytest
import torch

from core.adapters.adapted import AdaptedModel
from core.batching.rows import Row
from core.spec.strategy import PrefixSpec
from core.spec.training import TrainingSpec
from core.strategies.attach import attach
from core.training import activations
from core.training.activations import activation_bytes, use_gradient_checkpointing

ROWS = [Row(n, tuple(range(20)), (False,) + (True,) * 19) for n in range(1, 9)]


@pytest.fixture
def free_bytes(monkeypatch):
    """Return a function that says how much memory is free."""

    def say(size):
        monkeypatch.setattr(activations, "free_bytes", lambda device: size)

    return say


def test_estimate_follows_the_rule(tiny_model):
    adapted = AdaptedModel(tiny_model("llama"), {}, None)
    per_token = 2 * (16 * 32 + 4 * 48 + 4 * 20) * 4
    assert activation_bytes(adapted, ROWS, 4096) == 160 * per_token
    assert activation_bytes(adapted, ROWS, 50) == 50 * per_token
    assert activation_bytes(adapted, ROWS, 8) == 20 * per_token


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "t5", "bart", "bert", "modernbert"])
def test_every_family_has_what_the_estimate_asks_for(tiny_model, model_type):
    adapted = AdaptedModel(tiny_model(model_type), {}, None)
    layers = 4 if model_type in ("t5", "bart") else 2
    per_token = layers * (16 * 32 + 4 * 48 + 4 * 20) * 4
    assert activation_bytes(adapted, ROWS, 50) == 50 * per_token


def test_estimate_bounds_what_is_really_kept(tiny_model):
    """Counted by the hooks of autograd, which see every tensor kept for the backward pass."""
    from core.models.attention import use_packed_attention
    from core.objectives.supervised import Supervised
    from core.spec.strategy import LoraSpec

    model = tiny_model("llama", hidden_size=256, intermediate_size=512, head_dim=64)
    use_packed_attention(model)
    adapted = attach(model, LoraSpec(rank=4), None)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        sums = Supervised(None).loss(adapted.model.train() and adapted, ROWS)
    estimate = activation_bytes(adapted, ROWS, 4096)
    assert sums.loss.isfinite()
    assert 0.4 * estimate < sum(kept.values()) < 1.1 * estimate


def test_auto_is_on_only_when_memory_is_short(tiny_model, free_bytes):
    for free, expected in ((2**40, False), (2**10, True), (None, False)):
        free_bytes(free)
        adapted = AdaptedModel(tiny_model("llama"), {}, None)
        assert use_gradient_checkpointing(adapted, ROWS, TrainingSpec()) is expected
        assert adapted.model.is_gradient_checkpointing is expected


def test_what_is_asked_for_is_done_whatever_is_free(tiny_model, free_bytes):
    for asked, free in ((True, 2**40), (False, 2**10)):
        free_bytes(free)
        adapted = AdaptedModel(tiny_model("llama"), {}, None)
        spec = TrainingSpec(gradient_checkpointing=asked)
        assert use_gradient_checkpointing(adapted, ROWS, spec) is asked


def test_prefix_of_an_encoder_decoder_is_never_checkpointed_by_itself(
    tiny_model, tiny_tokenizer, free_bytes
):
    free_bytes(2**10)
    adapted = attach(tiny_model("t5"), PrefixSpec(virtual_tokens=4), tiny_tokenizer("t5"))
    assert use_gradient_checkpointing(adapted, ROWS, TrainingSpec()) is False


def test_free_memory_of_this_machine_is_known():
    free = activations.free_bytes(torch.device("cpu"))
    assert free is not None and 2**20 < free < 2**50
