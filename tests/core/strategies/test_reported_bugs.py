"""Faults of (IA)³ that people have reported elsewhere, each tried here.

The number of a report stands with each; what it says was found out from its text, and none of its
code is used. `test_ia3.py` compares with PEFT, merged biases and transposed layers included
(peft#972, peft#1014).
"""

import peft
import pytest
import torch
from safetensors.torch import save_file

from core.adapters.targets import linear_paths
from core.artifacts.merge import merge
from core.errors import InvalidRequest
from core.spec.strategy import Ia3Spec
from core.strategies.ia3 import attach_ia3
from tests.core import tiny
from tests.core.adapters.reference import attached_beside_peft, disturb, warnings_of_peft


def test_many_names_are_saved_with_all_that_are_scaled_at_their_input(tmp_path):
    """peft#2429: above twenty names it shortens the targets, and then misses the others in them"""
    paths = linear_paths(tiny.tiny_model("llama", num_hidden_layers=4))
    inputs = tuple(path for path in paths if path.endswith(("down_proj", "o_proj")))
    spec = Ia3Spec(target_modules=tuple(paths), feedforward_modules=inputs)
    assert len(paths) > 20
    adapted, reference = attached_beside_peft(attach_ia3, spec, "llama", num_hidden_layers=4)
    disturb(adapted, reference)
    adapted.config.save_pretrained(str(tmp_path))
    save_file(adapted.state(), tmp_path / "adapter_model.safetensors")
    with warnings_of_peft():
        base = tiny.tiny_model("llama", num_hidden_layers=4)
        loaded = peft.PeftModel.from_pretrained(base, str(tmp_path))
    tokens = torch.arange(30, 45)[None]
    torch.testing.assert_close(adapted.model.eval()(tokens).logits, loaded(tokens).logits)


@pytest.mark.parametrize("name", ["embed_tokens", "model.embed_tokens", "lm_head"])
def test_embeddings_are_refused_with_what_trains_them(name):
    """peft#2429 and others: vectors of embeddings and heads"""
    with pytest.raises(InvalidRequest, match="List it in modules_to_save"):
        attach_ia3(tiny.tiny_model(), Ia3Spec(target_modules=(name,)))
    adapted = attach_ia3(tiny.tiny_model(), Ia3Spec(modules_to_save=("embed_tokens",)))
    assert "base_model.model.model.embed_tokens.weight" in adapted.trainable


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_merging_leaves_the_base_of_other_adapters_as_it_is(model_type):
    """peft#3216: what is merged and taken out again was scaled twice"""
    adapted, reference = attached_beside_peft(attach_ia3, Ia3Spec(), model_type)
    before = {name: weight.clone() for name, weight in adapted.state().items()}
    disturb(adapted, reference)
    tokens = torch.arange(9)[None]
    expected = adapted.model.eval()(tokens).logits
    adapted.remove()
    plain = {name: weight.clone() for name, weight in adapted.model.state_dict().items()}
    untouched = tiny.tiny_model(model_type).state_dict()
    assert all(torch.equal(plain[name], untouched[name]) for name in untouched)
    torch.testing.assert_close(merge(adapted).eval()(tokens).logits, expected)
    assert all((weight == 1).all() for weight in before.values())
