"""Adapters come and go on one base; each answers as plain PEFT does."""

import gc
import shutil
import weakref

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.engine.device.causal_model import CausalModel
from core.engine.policy.request import ModelKey, Request, SequenceState
from core.engine.policy.step import Chunk
from core.errors import Unavailable
from core.models.block_cache import BlockCache
from core.spec.generation import SamplingSpec

PROMPT = tuple(range(5, 40))
BLOCKS, BLOCK_TOKENS = 8, 16
W, X, Y, Z = (letter * 64 for letter in "abcd")
NATS = {torch.float32: 5e-5, torch.bfloat16: 0.3}
"""How far our layers may be from PEFT's: in bf16 both round, each at different positions."""


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def make_resident(base, dtype, adapter_folders):
    """Make a base with these adapters, named W, X, Y and Z."""

    def make(max_adapters: int, folders=adapter_folders) -> CausalModel:
        model = AutoModelForCausalLM.from_pretrained(base.source, dtype=dtype)
        cache = BlockCache(model.config, BLOCKS, BLOCK_TOKENS, dtype, model.device)
        by_name = dict(zip([W, X, Y, Z], folders, strict=False))
        return CausalModel(model, cache, by_name.__getitem__, max_adapters)

    return make


@pytest.fixture(scope="module")
def expected(base, dtype, adapter_folders) -> dict[str | None, torch.Tensor]:
    """Log-probabilities after the prompt of a fresh base without an adapter and with each."""
    found = {}
    with torch.inference_mode():
        for name, folder in zip([None, W, X, Y, Z], [None, *adapter_folders], strict=True):
            fresh = AutoModelForCausalLM.from_pretrained(base.source, dtype=dtype)
            tuned = PeftModel.from_pretrained(fresh, folder) if folder else fresh
            found[name] = tuned(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)
    return found


def after_prompt(resident: CausalModel, name: str | None, in_use=()) -> torch.Tensor:
    """The same of a resident base, which loads the adapter if it must."""
    if name is not None:
        resident.prepare(name, in_use)
    model = ModelKey(None, name)
    request = Request("r", model, PROMPT, SamplingSpec(seed=0), 1, frozenset())
    sequence = SequenceState(request, 0, blocks=list(range(BLOCKS)))
    written = resident.run([Chunk(sequence, 0, len(PROMPT))])
    return written.logits_SV[0].log_softmax(-1)


@pytest.mark.parametrize("max_adapters", [1, 2, 4])
def test_every_switch_gives_what_peft_gives_and_always_the_same(
    max_adapters, make_resident, expected, dtype
):
    resident = make_resident(max_adapters)
    first: dict[str | None, torch.Tensor] = {}
    for name in [None, W, X, None, W, Y, Z, None, Z, W, None, X]:
        found = first.setdefault(name, after_prompt(resident, name))
        assert torch.equal(after_prompt(resident, name), found), name
        torch.testing.assert_close(found, expected[name], atol=NATS[dtype], rtol=0)
        assert len(resident.adapters()) <= max_adapters


def test_the_least_recently_used_adapter_makes_room_unless_in_use(make_resident):
    resident = make_resident(2)
    for name in (W, X, W):
        resident.prepare(name, in_use=())
    resident.prepare(Y, in_use={W})
    assert resident.adapters() == [W, Y]
    resident.prepare(Z, in_use={W})
    assert resident.adapters() == [W, Z]


def test_an_evicted_adapter_is_gone_from_memory(make_resident):
    resident = make_resident(1)
    resident.prepare(W, in_use=())
    deltas = weakref.ref(resident._mixed._adapters[W])
    resident.prepare(Y, in_use=())
    gc.collect()
    assert deltas() is None


def test_an_adapter_takes_no_memory_beyond_its_slot(make_resident, adapter_folders, dtype):
    """Training may lay out copies of the base's matrices; a server with many adapters must not."""
    resident = make_resident(1)
    resident.prepare(W, in_use=())
    weights = load_file(adapter_folders[0] / "adapter_model.safetensors")
    own = sum(weight.numel() for weight in weights.values()) * dtype.itemsize
    [rank] = {len(weight) for name, weight in weights.items() if "lora_A" in name}
    slots = resident._mixed._adapters[W].slots
    tables = [layer.a_CIR for layer in slots.layers.values()]
    tables += [layer.b_CRO for layer in slots.layers.values()]
    storages = {table.untyped_storage().data_ptr(): table.untyped_storage() for table in tables}
    held = sum(storage.nbytes() for storage in storages.values())
    assert held == own * slots.rank / rank * slots.capacity
    assert not resident._mixed._adapters[W].others, "and holds no layers"


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


def test_an_adapter_that_memory_is_too_short_for_is_not_called_damaged(
    make_resident, adapter_folders, dtype, monkeypatch
):
    resident = make_resident(3, adapter_folders[:1])

    def load(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("core.engine.device.adapter_loading.load_adapter", load)
    with pytest.raises(Unavailable) as caught:
        resident.prepare(W, in_use=())
    assert caught.value.code == "engine_out_of_memory"


@pytest.mark.parametrize("is_first", [True, False])
def test_an_adapter_that_does_not_fit_is_refused_and_leaves_no_trace(
    is_first, damaged, make_resident, adapter_folders, expected, dtype
):
    resident = make_resident(3, [adapter_folders[0], *damaged])
    if not is_first:
        resident.prepare(W, in_use=())
    for name in (X, Y, Z):
        with pytest.raises(Unavailable) as caught:
            resident.prepare(name, in_use=())
        assert caught.value.code == "adapter_corrupt"
        for known in (None, W):
            torch.testing.assert_close(
                after_prompt(resident, known), expected[known], atol=NATS[dtype], rtol=0
            )
    assert resident.adapters() == [W]
