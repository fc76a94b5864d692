"""Adapters come and go on one base; each answers as plain PEFT does."""

import gc
import shutil
import weakref
from collections.abc import Iterator

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.engine.resident import ResidentBase
from core.errors import Unavailable

IDS_BT = torch.arange(5, 40)[None]
W, X, Y, Z = (letter * 64 for letter in "abcd")
NATS = {torch.float32: 1e-5, torch.bfloat16: 0.3}
"""How far our layers may be from PEFT's: in bf16 both round, each at places of its own."""


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
    return resident.activate(name, in_use).model(IDS_BT).logits


@pytest.mark.parametrize("max_adapters", [1, 2, 4])
def test_every_switch_gives_what_peft_gives_and_always_the_same(
    max_adapters, make_resident, expected, dtype
):
    resident = make_resident(max_adapters)
    first: dict[str | None, torch.Tensor] = {}
    for name in [None, W, X, None, W, Y, Z, None, Z, W, None, X]:
        logits = first.setdefault(name, logits_of(resident, name))
        assert torch.equal(logits_of(resident, name), logits), name
        torch.testing.assert_close(
            logits.log_softmax(-1), expected[name].log_softmax(-1), atol=NATS[dtype], rtol=0
        )
        assert len(resident.resident_adapters()) <= max_adapters
    assert torch.equal(first[None], expected[None]), "the base was not left as it was"


def test_the_least_recently_used_adapter_makes_room_unless_in_use(make_resident):
    resident = make_resident(2)
    for name in (W, X):
        resident.activate(name, in_use=())
    resident.activate(W, in_use=())
    resident.activate(Y, in_use={W})
    assert resident.resident_adapters() == [W, Y]
    resident.activate(Z, in_use={W})
    assert resident.resident_adapters() == [W, Z]


def test_an_evicted_adapter_is_gone_from_memory(make_resident):
    resident = make_resident(1)
    layer = weakref.ref(next(iter(resident.activate(W, in_use=()).replaced.values())))
    resident.activate(Y, in_use=())
    gc.collect()
    assert layer() is None


def test_an_adapter_takes_no_memory_beyond_its_weights(make_resident):
    """Training may lay out copies of the base's matrices; a server with many adapters must not."""
    adapted = make_resident(1).activate(W, in_use=())
    own = {parameter.data_ptr() for parameter in adapted.parameters}
    base = {parameter.data_ptr() for parameter in adapted.model.parameters()}
    held = [each for each in _tensors_within(adapted.replaced) if each.data_ptr() not in own | base]
    assert held == []


def _tensors_within(thing: object) -> Iterator[torch.Tensor]:
    """Yield the tensors that are reachable from a value, in whatever attributes."""
    seen: set[int] = set()
    waiting = [thing]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, (type, str)):
            continue
        seen.add(id(each))
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, (list, tuple)):
            waiting.extend(each)
        elif hasattr(each, "__dict__"):
            waiting.extend(vars(each).values())


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
    is_first, damaged, make_resident, adapter_folders, expected, dtype
):
    resident = make_resident(3, [adapter_folders[0], *damaged])
    if not is_first:
        resident.activate(W, in_use=())
    for name in (X, Y, Z):
        with pytest.raises(Unavailable) as caught:
            resident.activate(name, in_use=())
        assert caught.value.code == "adapter_corrupt"
        assert torch.equal(logits_of(resident, None), expected[None])
        torch.testing.assert_close(
            logits_of(resident, W).log_softmax(-1),
            expected[W].log_softmax(-1),
            atol=NATS[dtype],
            rtol=0,
        )
    assert resident.resident_adapters() == [W]
