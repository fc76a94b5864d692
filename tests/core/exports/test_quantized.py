"""Quantized exports load in transformers; adapters load in PEFT."""

import bitsandbytes as bnb
import pytest
import torch
from transformers import AutoModelForCausalLM

from core.exports.steps import run_step
from core.models.load import load_base
from core.parity.distance import judge_export
from core.spec.base_model import BaseModelSpec
from core.spec.export_steps import ServeStep
from core.spec.strategy import LoraSpec, PrefixSpec, PromptSpec
from tests.core.engine.bundles import write_bundle
from tests.core.exports.exporting import export, options_for
from tests.core.tiny import save_base

LORA = LoraSpec(rank=4, alpha=8)
CPU = torch.device("cpu")


LAYERS = {"nf4": bnb.nn.Linear4bit, "int8": bnb.nn.Linear8bitLt}
WIDE = {
    "llama": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_key_value_heads": 4,
        "head_dim": 16,
    },
    "gpt2": {"n_embd": 64, "n_inner": 128},
}
"""On CPUs with instructions for bf16, bitsandbytes itself cannot repack narrower layers."""


@pytest.mark.parametrize("family", WIDE)
@pytest.mark.parametrize("format_", LAYERS)
def test_quantized_exports_load_in_transformers(tmp_path, store, family, format_):
    base = save_base(tmp_path / "base", family, eos_token_id=None, **WIDE[family])
    bundle = write_bundle(tmp_path / "bundle", store, base, LORA)
    found = export(bundle, options_for(format_), tmp_path / "out")
    assert found.distance.adapter_share == pytest.approx(1, abs=0.5)
    assert 0 < found.distance.mean_nats < 1, "random weights are sensitive to rounding"
    assert not (tmp_path / "dense").exists()

    export(bundle, options_for("merged"), tmp_path / "merged")
    of_export = BaseModelSpec(id="export", source=str(tmp_path / "out"))
    quantized = BaseModelSpec(id="x", source=str(tmp_path / "merged"), quantization=format_)
    ours, expected = (
        logits(load_base(each, torch.float32, CPU)) for each in (of_export, quantized)
    )
    assert torch.equal(ours, expected)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert {type(each) for each in plain.modules()} & {*LAYERS.values()} == {LAYERS[format_]}
    distance = (logits(plain).log_softmax(-1) - ours.log_softmax(-1)).abs().mean()
    assert distance < 0.1, "of activations that bitsandbytes rounds"


@torch.inference_mode()
def logits(model):
    return model.eval()(torch.arange(12)[None]).logits


@pytest.mark.parametrize(
    "strategy", [LORA, LoraSpec(rank=2, use_dora=True), PrefixSpec(), PromptSpec()]
)
def test_adapters_load_in_peft(tmp_path, store, strategy):
    base = save_base(tmp_path / "base", eos_token_id=None)
    bundle = write_bundle(tmp_path / "bundle", store, base, strategy)
    found = export(bundle, options_for("huggingface", form="adapter"), tmp_path / "out")
    assert found.status == "passed" and found.distance.max_nats < 1e-4
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    assert not (tmp_path / "out/manifest.json").exists()


def test_an_export_without_its_adapter_is_marked(tmp_path, store):
    base = save_base(tmp_path / "base", eos_token_id=None)
    bundle = write_bundle(tmp_path / "bundle", store, base, LORA)
    options = options_for("nf4")
    step = ServeStep(base=base, bundle=bundle.folder, options=options, reference=None)
    served = run_step(step)
    found = judge_export(options, "fp32", served, served.base, None)
    assert found.status == "marked" and "like the base" in found.reason
    assert found.distance.adapter_share == pytest.approx(0, abs=1e-9)
