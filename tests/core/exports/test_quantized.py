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


LAYERS = {"nf4": bnb.nn.Linear4bit, "int8": bnb.nn.Linear8bitLt}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("format_", ["nf4", "int8"])
def test_quantized_exports_load_in_transformers(tmp_path, store, family, format_):
    base = save_base(tmp_path / "base", family, eos_token_id=None)
    bundle = write_bundle(tmp_path / "bundle", store, base, LORA)
    found = export(bundle, options_for(format_), tmp_path / "out")
    assert found.distance.adapter_share == pytest.approx(1, abs=0.5)
    assert 0 < found.distance.mean_nats < 1, "random weights are sensitive to rounding"
    assert not (tmp_path / "dense").exists()

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    kinds = {type(each) for each in loaded.modules()}
    assert kinds & {*LAYERS.values()} == {LAYERS[format_]}
    export(bundle, options_for("merged"), tmp_path / "merged")
    source = BaseModelSpec(id="x", source=str(tmp_path / "merged"), quantization=format_)
    quantized = load_base(source, torch.float32, torch.device("cpu"))
    tokens = torch.arange(12)[None]
    with torch.inference_mode():
        assert torch.equal(loaded(tokens).logits, quantized(tokens).logits)


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
