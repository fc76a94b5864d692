import pytest
import torch

from core.adapters.modules_to_save import classifier_head, trainable_copies, weights_by_name
from core.errors import InvalidRequest
from tests.core import tiny


def test_copies_compute_in_fp32_inside_a_bf16_model():
    model = tiny.tiny_model(dtype=None).bfloat16()
    copies = trainable_copies(model, ("lm_head", "model.norm"))
    assert {p.dtype for p in weights_by_name(copies).values()} == {torch.float32}
    hidden = torch.randn(3, 32, dtype=torch.bfloat16)
    for path, copied in copies.items():
        original = model.get_submodule(path)
        assert copied(hidden).dtype == torch.bfloat16
        torch.testing.assert_close(copied(hidden), original(hidden), rtol=2e-2, atol=2e-2)
    copies["lm_head"](hidden).float().sum().backward()
    assert copies["lm_head"].weight.grad.dtype == torch.float32


def test_names_are_those_of_peft():
    copies = trainable_copies(tiny.tiny_model(), ("lm_head",))
    assert weights_by_name(copies).keys() == {"base_model.model.lm_head.weight"}


def test_a_module_inside_another_is_copied_once():
    copies = trainable_copies(tiny.tiny_model(), ("layers.0.mlp", "layers.0.mlp.up_proj"))
    assert copies.keys() == {"model.layers.0.mlp"}


@pytest.mark.parametrize(
    ("model_type", "head"),
    [
        ("llama", ("score",)),
        ("bert", ("pooler", "classifier")),
        ("modernbert", ("head", "classifier")),
    ],
)
def test_only_classifiers_have_a_head_of_their_own(model_type, head):
    assert classifier_head(tiny.tiny_model(model_type, labels=2)) == head
    assert classifier_head(tiny.tiny_model(model_type)) == ()


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("lm_haed", "unknown_target_module", "lm_head"),
        ("model.layers", "unsupported_target_module", "a list of modules"),
        ("act_fn", "unsupported_target_module", "has no weights"),
    ],
)
def test_module_that_cannot_be_trained_is_refused(name, code, message):
    with pytest.raises(InvalidRequest, match=message) as caught:
        trainable_copies(tiny.tiny_model(), (name,))
    assert (caught.value.param, caught.value.code) == ("strategy.modules_to_save", code)
