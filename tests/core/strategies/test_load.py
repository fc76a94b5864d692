import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from core.artifacts.manifest import ADAPTER_FILE, MODEL_FILE, write_manifest
from core.errors import TunesmithError
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.strategy import BottleneckSpec, Ia3Spec, LoraSpec, PrefixSpec, PromptSpec
from core.strategies.attach import attach
from core.strategies.load import load_adapter

SPECS = [
    LoraSpec(rank=2, dropout=0.5),
    BottleneckSpec(reduction_factor=8),
    PrefixSpec(virtual_tokens=3),
    PromptSpec(virtual_tokens=3, init_text="abc"),
    Ia3Spec(),
]


def write_bundle(folder, spec, state, file=ADAPTER_FILE):
    """Write what `load_adapter` reads of a bundle."""
    folder.mkdir(exist_ok=True)
    save_file(state, folder / file)
    base = BaseModelSpec(id="tiny", source="owner/tiny")
    write_manifest(folder, JobSpec(base=base, strategy=spec, seed=0))


@pytest.fixture
def bundle(tmp_path, tiny_model, chat_tokenizer):
    """Return a builder of a bundle with random weights, and those weights."""

    def build(spec, labels=None):
        attached = attach(tiny_model(labels=labels), spec, chat_tokenizer)
        for parameter in attached.parameters:
            nn.init.normal_(parameter)
        write_bundle(tmp_path / "bundle", spec, attached.state())
        return tmp_path / "bundle", attached.state()

    return build


@pytest.mark.parametrize("labels", [None, 3])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.type)
def test_loaded_weights_are_those_of_the_file(bundle, tiny_model, chat_tokenizer, spec, labels):
    folder, state = bundle(spec, labels)
    loaded = load_adapter(tiny_model(labels=labels), folder, chat_tokenizer).state()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.type)
def test_model_and_generator_are_as_before_until_the_adapter_is_installed(
    bundle, tiny_model, chat_tokenizer, spec
):
    folder, _ = bundle(spec)
    model = tiny_model()
    modules = dict(model.named_modules())
    drawn = torch.get_rng_state()
    adapted = load_adapter(model, folder, chat_tokenizer)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert dict(model.named_modules()) == modules
    assert adapted.prefix is adapted.soft_prompt is None
    adapted.install()
    assert dict(model.named_modules()) != modules or adapted.prefix or adapted.soft_prompt
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(min(state)), "lacks base_model.model.*adapter_down.bias"),
        (lambda state: state.update(extra=torch.ones(1)), "has the unexpected extra"),
        (
            lambda state: state.update({min(state): torch.ones(5)}),
            r"has shape \(5,\); this model needs",
        ),
    ],
)
def test_weights_of_another_form_are_refused(bundle, tiny_model, chat_tokenizer, change, message):
    folder, state = bundle(BottleneckSpec(reduction_factor=8))
    change(state)
    write_bundle(folder, BottleneckSpec(reduction_factor=8), state)
    with pytest.raises(TunesmithError, match=message) as caught:
        load_adapter(tiny_model(), folder, chat_tokenizer)
    assert caught.value.code == "artifact_corrupt"


def test_full_model_is_no_adapter(tmp_path, tiny_model, chat_tokenizer):
    write_bundle(tmp_path / "whole", LoraSpec(), {"weight": torch.ones(2)}, MODEL_FILE)
    with pytest.raises(TunesmithError, match="complete model"):
        load_adapter(tiny_model(), tmp_path / "whole", chat_tokenizer)


def test_unreadable_file_is_refused(bundle, tiny_model, chat_tokenizer):
    folder, _ = bundle(PrefixSpec(virtual_tokens=3))
    assert load_file(folder / ADAPTER_FILE)
    (folder / ADAPTER_FILE).write_bytes(b"no tensors")
    with pytest.raises(TunesmithError, match="Cannot read") as caught:
        load_adapter(tiny_model(), folder, chat_tokenizer)
    assert caught.value.code == "artifact_corrupt"
