"""Adapters come and go on one base; each answers as plain PEFT does."""

import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.engine.resident import ResidentBase
from core.errors import Unavailable

IDS_BT = torch.arange(5, 40)[None]
W, X, Y, Z = (letter * 64 for letter in "abcd")
"""Names as long as hashes: PEFT looks for a name anywhere in the key of a weight."""


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def model(base, dtype):
    return AutoModelForCausalLM.from_pretrained(base.source, dtype=dtype)


@pytest.fixture
def make_resident(model, adapter_folders):
    """Make a base with these adapters, named W, X, Y and Z."""

    def make(max_adapters: int, folders=adapter_folders) -> ResidentBase:
        by_name = dict(zip([W, X, Y, Z], folders, strict=False))
        return ResidentBase(model, by_name.__getitem__, max_adapters)

    return make


@pytest.fixture(scope="module")
def expected(base, dtype, adapter_folders) -> dict[str | None, torch.Tensor]:
    """Logits of a fresh base without an adapter and with each, as a user of PEFT gets them."""
    logits = {}
    with torch.inference_mode():
        for name, folder in zip([None, W, X, Y, Z], [None, *adapter_folders], strict=True):
            fresh = AutoModelForCausalLM.from_pretrained(base.source, dtype=dtype)
            tuned = PeftModel.from_pretrained(fresh, folder) if folder else fresh
            logits[name] = tuned(IDS_BT).logits
    return logits


@torch.inference_mode()
def logits_of(resident: ResidentBase, name: str | None, in_use=()) -> torch.Tensor:
    return resident.activate(name, in_use)(IDS_BT).logits


@pytest.mark.parametrize("max_adapters", [1, 2, 4])
def test_every_switch_gives_exactly_what_peft_gives(max_adapters, make_resident, expected):
    resident = make_resident(max_adapters)
    for name in [None, W, X, None, W, Y, Z, None, Z, W, None, X]:
        assert torch.equal(logits_of(resident, name), expected[name]), name
        assert len(resident.resident_adapters()) <= max_adapters


def test_the_least_recently_used_adapter_makes_room_unless_in_use(make_resident):
    resident = make_resident(2)
    for name in (W, X):
        resident.activate(name, in_use=())
    resident.activate(W, in_use=())
    resident.activate(Y, in_use={W})
    assert resident.resident_adapters() == [W, Y]
    resident.activate(Z, in_use={W})
    assert resident.resident_adapters() == [W, Z]


def test_the_parameters_of_an_evicted_adapter_are_gone(make_resident, model):
    resident = make_resident(1)
    resident.activate(W, in_use=())
    with_one = sum(parameter.numel() for parameter in model.parameters())
    resident.activate(Y, in_use=())  # of the same rank
    assert sum(parameter.numel() for parameter in model.parameters()) == with_one


@pytest.fixture
def damaged(adapter_folders, tmp_path):
    """Three copies of an adapter: one weight of another shape, one absent, no weights at all."""
    folders = []
    for damage in ("shape", "absent", "no file"):
        folder = tmp_path / damage
        shutil.copytree(adapter_folders[0], folder)
        weights = folder / "adapter_model.safetensors"
        state = load_file(weights)
        name = sorted(state)[0]
        if damage == "shape":
            state[name] = state[name][:, :-1].contiguous()
        else:
            del state[name]
        save_file(state, weights, metadata={"format": "pt"})
        if damage == "no file":
            weights.unlink()
        folders.append(folder)
    return folders


@pytest.mark.parametrize("is_first", [True, False])
def test_an_adapter_that_does_not_fit_is_refused_and_leaves_no_trace(
    is_first, damaged, make_resident, adapter_folders, expected
):
    resident = make_resident(3, [adapter_folders[0], *damaged])
    if not is_first:
        resident.activate(W, in_use=())
    for name in (X, Y, Z):
        with pytest.raises(Unavailable) as caught:
            resident.activate(name, in_use=())
        assert caught.value.code == "adapter_corrupt"
        assert torch.equal(logits_of(resident, None), expected[None])
        assert torch.equal(logits_of(resident, W), expected[W])
    assert resident.resident_adapters() == [W]
