"""What a model takes is known before it is loaded, and what can never fit is refused."""

import pytest
import torch

from core.engine.device.footprint import footprint
from core.engine.device.runner import BaseLoader
from core.engine.policy.request import BaseKey
from core.engine.text.prompts import PromptReader
from core.errors import InvalidRequest
from core.models.load import load_base
from core.models.precision import name_of
from core.spec.generation import GenerationRequest, SamplingSpec, TokenPrompt
from core.spec.serving import ServingSpec
from core.spec.strategy import LoraSpec
from tests.core.engine.bundles import write_bundle
from tests.core.tiny import save_base

CPU = torch.device("cpu")
WIDE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
"""Rows of whole blocks of bitsandbytes, as real models have them."""


def held_bytes(model) -> int:
    """Count every byte of the weights in memory, with the scales of quantized ones."""
    total = 0
    for weight in model.parameters():
        total += weight.nbytes
        state = getattr(weight, "quant_state", None)
        if state is not None:
            total += state.absmax.nbytes + state.state2.absmax.nbytes
        scales = getattr(weight, "SCB", None)
        total += 0 if scales is None else scales.nbytes
    return total


@pytest.mark.parametrize("quantization", [None, "nf4", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "t5"])
def test_weights_are_counted_as_they_lie_in_memory(tmp_path, model_type, dtype, quantization):
    sizes = WIDE if model_type == "llama" else {}
    stored = save_base(tmp_path, model_type, **sizes)
    base = stored.model_copy(update={"quantization": quantization})
    task = "seq2seq" if model_type == "t5" else "generation"
    model = load_base(base, dtype, CPU, task=task)
    found = footprint(BaseKey(base, task, precision=name_of(dtype)), CPU, cache_bytes=0)
    # scales of blocks that a small matrix does not fill, at most
    slack = 0.02 if quantization == "nf4" else 0
    assert found.weights == pytest.approx(held_bytes(model), rel=slack)


def test_measuring_leaves_the_default_dtype_of_other_threads_alone(tmp_path, monkeypatch):
    base = save_base(tmp_path, dtype=torch.bfloat16)
    seen = []
    monkeypatch.setattr(torch, "set_default_dtype", seen.append)
    footprint(BaseKey(base, precision="bf16"), CPU, cache_bytes=0)
    assert set(seen) == {torch.float32}


def test_copies_for_speed_the_cache_and_what_loading_takes_count(tmp_path):
    base = save_base(tmp_path)
    plain = footprint(BaseKey(base), CPU, cache_bytes=1000)
    linear = sum(
        module.weight.nbytes
        for module in load_base(base, torch.float32, CPU).modules()
        if type(module) is torch.nn.Linear
    )
    assert (plain.copies, plain.cache) == (linear, 1000)
    assert plain.total == plain.weights + linear + 1000
    quantized = base.model_copy(update={"quantization": "nf4"})
    late = footprint(BaseKey(quantized, merged_sha256="0" * 64), CPU, 0)
    assert late.loading == plain.weights and late.total == plain.weights
    on_gpu = BaseKey(quantized, merged_sha256="0" * 64)
    found = footprint(on_gpu, torch.device("cuda"), 0)
    assert (found.loading, found.copies) == (0, 0), "it is made in another memory"


def test_a_model_that_can_never_fit_is_refused_with_numbers(tmp_path, store, files):
    base = save_base(tmp_path / "base", **WIDE)
    bundle = write_bundle(tmp_path / "bundle", store, base, LoraSpec(rank=2))
    needed = BaseLoader(CPU, files.folder, cache_bytes=1, max_adapters=1)
    total = needed.bytes_of(BaseKey(base))

    def read(memory_bytes: int, serving: ServingSpec):
        loader = BaseLoader(
            CPU,
            files.folder,
            cache_bytes=1,
            max_adapters=1,
            max_base_bytes=memory_bytes,
        )
        return PromptReader(files, loader.cache_tokens, loader.require_room).read(
            GenerationRequest(
                id="r",
                base=base,
                adapter=bundle.ref,
                serving=serving,
                prompt=TokenPrompt(tokens=(1,)),
                sampling=SamplingSpec(seed=0, max_tokens=1),
            )
        )

    read(total, ServingSpec())
    with pytest.raises(InvalidRequest, match="needs 3 MiB of memory") as caught:
        read(total - 1, ServingSpec())
    assert (caught.value.code, caught.value.param) == ("model_too_large", "model")
    merged = ServingSpec(form="merged")
    read(total, merged)
    with pytest.raises(InvalidRequest, match="TUNESMITH_ENGINE_MODEL_MEMORY_MIB"):
        read(total - 1, merged)
