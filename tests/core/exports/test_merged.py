"""A merged export, loaded by plain transformers, says what the served model says."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from core.exports import save
from core.models.load import load_tokenizer
from core.spec.base_model import BaseModelSpec
from core.spec.objective import ClassificationSpec
from core.spec.strategy import FullSpec, Ia3Spec, LoraSpec, QloraSpec, StrategySpec
from tests.core.engine.bundles import write_bundle
from tests.core.exports.exporting import export, options_for
from tests.core.tiny import ENCODER_DECODERS, save_base

FP32_NATS = 1e-4

STRATEGIES: dict[str, StrategySpec] = {
    "lora": LoraSpec(rank=4, alpha=8),
    "rslora": LoraSpec(rank=4, alpha=8, use_rslora=True),
    "patterns": LoraSpec(
        rank=4, rank_pattern={"layers.1.mlp.up_proj": 2}, alpha_pattern={"q_proj": 64}
    ),
    "dora": LoraSpec(rank=4, alpha=8, use_dora=True),
    "head": LoraSpec(rank=4, target_modules="attention", modules_to_save=("lm_head",)),
    "embeddings": LoraSpec(rank=4, modules_to_save=("embed_tokens",)),
    "qlora": QloraSpec(rank=4, alpha=8),
    "ia3": Ia3Spec(),
    "full": FullSpec(),
}

COMBINATIONS = [
    *(("llama", name) for name in STRATEGIES),
    ("gemma2", "patterns"),  # tied; a merge that was saved as the base
    ("gemma3_text", "lora"),
    ("gemma3_text", "head"),  # tied in its base
    ("gemma3_text", "embeddings"),
    ("phi3", "dora"),
    ("gpt2", "lora"),
    ("gpt2", "dora"),
    ("gpt2", "ia3"),
    *((family, "lora") for family in ENCODER_DECODERS),
]


@pytest.mark.parametrize(("family", "strategy"), COMBINATIONS)
def test_merged_equals_served(tmp_path, store, family, strategy):
    base = save_base(tmp_path / "base", family, eos_token_id=None)
    task = "seq2seq" if family in ENCODER_DECODERS else "generation"
    bundle = write_bundle(tmp_path / "bundle", store, base, STRATEGIES[strategy], task)
    found = export(bundle, options_for("merged"), tmp_path / "out")
    assert found.status == "passed", found.reason
    assert found.distance.max_nats < FP32_NATS
    assert found.distance.greedy_agreement == 1
    if strategy != "full":
        assert found.distance.adapter_share == pytest.approx(1, abs=1e-3)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_merged_classifier_knows_its_labels(tmp_path, store, multi_label):
    base = save_base(tmp_path / "base", "bert")
    objective = ClassificationSpec(labels=("cold", "mild", "hot"), multi_label=multi_label)
    strategy = LoraSpec(rank=4)
    bundle = write_bundle(tmp_path / "bundle", store, base, strategy, "classification", objective)
    found = export(bundle, options_for("merged"), tmp_path / "out")
    assert found.status == "passed" and found.distance.max_nats < FP32_NATS
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["id2label"] == {"0": "cold", "1": "mild", "2": "hot"}
    kind = "multi_label_classification" if multi_label else "single_label_classification"
    assert config["problem_type"] == kind


def test_large_models_are_sharded_and_load(tmp_path, store, monkeypatch):
    monkeypatch.setattr(save, "MAX_SHARD_BYTES", 50_000)
    base = save_base(tmp_path / "base", eos_token_id=None)
    bundle = write_bundle(tmp_path / "bundle", store, base, STRATEGIES["lora"])
    found = export(bundle, options_for("merged"), tmp_path / "out")
    assert found.status == "passed" and found.distance.max_nats < FP32_NATS
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 1


def test_weights_are_written_as_the_base_stores_them_or_as_requested(tmp_path, store):
    base = save_base(tmp_path / "base", eos_token_id=None, dtype=torch.bfloat16)
    bundle = write_bundle(tmp_path / "bundle", store, base, STRATEGIES["lora"])
    stored = export(bundle, options_for("merged"), tmp_path / "stored")
    wide = export(bundle, options_for("merged", precision="fp32"), tmp_path / "wide")
    assert (dtype_of(tmp_path / "stored"), dtype_of(tmp_path / "wide")) == ("BF16", "F32")
    assert wide.distance.mean_nats < stored.distance.mean_nats < 0.1


def test_a_base_that_is_stored_quantized_is_dequantized_first(tmp_path, store):
    dense = save_base(tmp_path / "dense", eos_token_id=None)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    quantized = AutoModelForCausalLM.from_pretrained(
        dense.source, dtype=torch.float32, quantization_config=config
    )
    quantized.save_pretrained(tmp_path / "base")
    load_tokenizer(dense).save_pretrained(tmp_path / "base")
    base = BaseModelSpec(id="quantized", source=str(tmp_path / "base"))
    bundle = write_bundle(tmp_path / "bundle", store, base, STRATEGIES["lora"])
    found = export(bundle, options_for("merged"), tmp_path / "out")
    assert found.status == "passed" and found.distance.max_nats < FP32_NATS
    assert "quantization_config" not in (tmp_path / "out/config.json").read_text()


@pytest.mark.parametrize("form", ["merged", "adapter"])
@pytest.mark.parametrize(("quantization", "allowed"), [("nf4", 1.0), ("int8", 0.3)])
def test_a_base_that_the_catalog_quantizes_explains_a_distance(
    tmp_path, store, quantization, allowed, form
):
    """The export has the dense weights of the base, the served model those of the catalog."""
    base = save_base(tmp_path / "base", eos_token_id=None)
    base = base.model_copy(update={"quantization": quantization})
    bundle = write_bundle(tmp_path / "bundle", store, base, STRATEGIES["lora"])
    found = export(bundle, options_for("huggingface", form=form), tmp_path / "out")
    assert found.distance.mean_nats > 1e-3
    assert found.distance.mean_allowed_nats == allowed
    assert found.distance.adapter_share == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_qlora_may_be_merged_into_the_weights_that_it_was_trained_on(tmp_path, store, family):
    base = save_base(tmp_path / "base", family, eos_token_id=None)
    bundle = write_bundle(tmp_path / "bundle", store, base, STRATEGIES["qlora"])
    rounded = options_for("merged", merge_into="dequantized")
    found = export(bundle, rounded, tmp_path / "out")
    assert found.distance.mean_nats > 1e-3, "the rounding of four bits is in the weights"
    assert found.distance.adapter_share == pytest.approx(1, abs=0.5)
    assert "quantization_config" not in (tmp_path / "out/config.json").read_text()


def test_an_invalid_generation_config_of_the_base_is_kept(tmp_path, store):
    base = save_base(tmp_path / "base", eos_token_id=None)
    own = '{"do_sample": false, "temperature": 0.3, "eos_token_id": 257}'
    (tmp_path / "base/generation_config.json").write_text(own)
    bundle = write_bundle(tmp_path / "bundle", store, base, STRATEGIES["lora"])
    assert export(bundle, options_for("merged"), tmp_path / "out").status == "passed"
    assert (tmp_path / "out/generation_config.json").read_text() == own


def dtype_of(folder):
    with safe_open(folder / "model.safetensors", framework="np") as file:
        return file.get_slice("model.norm.weight").get_dtype()
