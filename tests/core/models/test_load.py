import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from huggingface_hub import constants
from torch import nn
from transformers.pytorch_utils import Conv1D

from core.catalog.describe import describe
from core.catalog.families import FAMILIES, family_of
from core.errors import InvalidRequest, NotFound
from core.models import precision
from core.models.load import context_of, load_base, load_config, load_tokenizer, outline
from core.models.precision import dtype_of, name_of, sixteen_bits_of
from core.spec.base_model import BaseModelSpec
from core.spec.strategy import QloraSpec
from tests.core import tiny

CPU = torch.device("cpu")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHIPPED = Path(__file__).parents[3] / "core" / "models" / "tiny"
FP32 = torch.float32


def test_base_comes_frozen_and_in_the_dtype_asked_for(base_spec):
    model = load_base(base_spec, torch.bfloat16, CPU)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    assert load_config(base_spec).max_position_embeddings == 256


def test_tokenizer_reports_offsets(base_spec):
    tokenizer = load_tokenizer(base_spec)
    encoded = tokenizer("abcd!", return_offsets_mapping=True)
    assert encoded["offset_mapping"] == [(0, 4), (4, 5)]


def test_weights_that_are_not_safetensors_are_refused(base_spec, tmp_path):
    folder = tmp_path / "base"
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(NotFound) as caught:
        load_base(base_spec, torch.float32, CPU)
    assert "safetensors" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "load", [load_config, load_tokenizer, lambda base: load_base(base, torch.float32, CPU)]
)
def test_base_that_cannot_be_read_is_named_without_its_path(load, tmp_path):
    missing = BaseModelSpec(id="gone", source=str(tmp_path / "none"))
    with pytest.raises(NotFound, match="base model gone") as caught:
        load(missing)
    assert (caught.value.code, caught.value.param) == ("base_missing", "model")
    assert str(tmp_path) not in caught.value.message


LOADS = [load_config, load_tokenizer, lambda base: load_base(base, torch.float32, CPU)]


@pytest.mark.parametrize("load", LOADS, ids=["config", "tokenizer", "weights"])
def test_base_of_the_hub_is_read_from_the_cache_without_a_network(load, tmp_path, monkeypatch):
    """Any connection fails here: tests/conftest.py refuses all that leave this machine."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--acme--tiny"
    shutil.copytree(SHIPPED, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    load(BaseModelSpec(id="acme/tiny", source="acme/tiny"))
    load(BaseModelSpec(id="acme/tiny", source="acme/tiny", revision=COMMIT))


def test_snapshot_without_its_weights_serves_a_bridge_and_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--acme--tiny" / "snapshots" / COMMIT
    shutil.copytree(SHIPPED, snapshot, ignore=shutil.ignore_patterns("*.safetensors"))
    base = BaseModelSpec(id="acme/tiny", source="acme/tiny", revision=COMMIT)
    assert load_config(base).model_type == "llama"
    assert load_tokenizer(base)
    with pytest.raises(NotFound) as caught:
        load_base(base, torch.float32, CPU)
    assert caught.value.code == "base_missing"


@pytest.mark.parametrize("load", LOADS, ids=["config", "tokenizer", "weights"])
def test_base_that_is_not_in_the_cache_is_refused_at_once(load, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    began_at = time.monotonic()
    with pytest.raises(NotFound, match="POST /v1/models/acme/tiny/download") as caught:
        load(BaseModelSpec(id="acme/tiny", source="acme/tiny"))
    assert caught.value.code == "base_missing"
    assert time.monotonic() - began_at < 1  # huggingface_hub waits 23 s for a hub out of reach


def first_task(model_type):
    task = family_of(model_type).own_task
    return {"task": task, "labels": 3 if task == "classification" else None}


def logits_of(model):
    tokens = torch.arange(5, 25)[None]
    target = {"labels": tokens} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=tokens, **target).logits


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"model_type": "zzz"}'),
        ("config.json", '{"model_type": "llama", "hidden_size": "wide"}'),
        ("config.json", '{"model_type": "llama", "hidden_size": 33, "num_attention_heads": 4}'),
        ("config.json", '{"model_type": "llama", "hidden_act": "zzz"}'),
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{}"),
        ("model.safetensors", "nothing"),
    ],
)
def test_files_that_make_no_model_are_refused(base_spec, name, text):
    (Path(base_spec.source) / name).write_text(text)
    with pytest.raises(InvalidRequest) as caught:
        load_tokenizer(base_spec)
        outline(base_spec, load_config(base_spec), "generation")
        load_base(base_spec, FP32, CPU)
    assert (caught.value.code, caught.value.param) == ("unsupported_model", "model")
    assert base_spec.source not in caught.value.message


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_every_family_loads_for_its_tasks(model_type, base_of):
    base = base_of(model_type)
    original = tiny.tiny_model(model_type)
    for task in family_of(model_type).tasks:
        labels = 3 if task == "classification" else None
        model = load_base(base, FP32, CPU, task=task, labels=labels)
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not model.training
        if labels:
            assert logits_of(model).shape == (1, 3)
        else:
            assert torch.equal(logits_of(model), logits_of(original))


@pytest.mark.parametrize("model_type", [*tiny.DECODERS, *tiny.ENCODERS])
def test_new_head_of_a_classifier_follows_the_seed(model_type, base_of):
    base, family = base_of(model_type), family_of(model_type)

    def load(seed):
        torch.manual_seed(seed)
        model = load_base(base, FP32, CPU, task="classification", labels=3)
        return {
            name: parameter
            for name, parameter in model.named_parameters()
            if any(f"{head}." in f".{name}" for head in (f".{head}" for head in family.head))
        }

    first, again, other = load(1), load(1), load(2)
    assert first and all(parameter.isfinite().all() for parameter in first.values())
    assert all(torch.equal(first[name], again[name]) for name in first)
    in_base = {name for name in first if name.startswith("head.")}  # that of masked words
    drawn = {name for name in first if name.endswith("weight")} - in_base
    assert drawn and all(not torch.equal(first[name], other[name]) for name in drawn)
    assert all(torch.equal(first[name], other[name]) for name in in_base)
    if model_type == "bert":
        assert "bert.pooler.dense.weight" in drawn


def test_a_base_that_has_other_labels_gets_a_new_head(tmp_path):
    tiny.tiny_model("bert", labels=5).save_pretrained(tmp_path)
    base = BaseModelSpec(id="labelled", source=str(tmp_path))
    model = load_base(base, FP32, CPU, task="classification", labels=2)
    assert model.classifier.out_features == model.config.num_labels == 2


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_limit_of_a_row_is_the_one_that_the_api_knows(model_type, base_of):
    base = base_of(model_type)
    facts = describe(base)
    assert facts is not None and context_of(load_config(base)) == facts.context_length


WIDE = {"t5": {"d_model": 64}, "bart": {"d_model": 64}, "gpt2": {"n_embd": 64}}


def wide_base(base_of, model_type):
    """bitsandbytes quantizes blocks of 64 numbers."""
    return base_of(model_type, **WIDE.get(model_type, {"hidden_size": 64}))


def split_layers(model, family):
    """Which linear layers are quantized, and which are not."""
    layers = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    quantized = {path for path, module in layers.items() if isinstance(module, Linear4bit)}
    return quantized, layers.keys() - quantized


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_layers_of_the_blocks_are_quantized_and_the_head_is_not(model_type, base_of, tmp_path):
    base, family = wide_base(base_of, model_type), family_of(model_type)
    torch.manual_seed(3)
    model = load_base(base, FP32, CPU, quantization=QloraSpec(), **first_task(model_type))
    quantized, dense = split_layers(model, family)
    stacks = tuple(f"{blocks.stack}." for blocks in family.blocks)
    in_blocks = {path for path in quantized | dense if path.startswith(stacks)}
    if model_type == "t5":  # transformers keeps these wide, as in fp16
        in_blocks = {path for path in in_blocks if not path.endswith(".wo")}
    assert quantized == in_blocks
    assert all(model.get_submodule(path).weight.quant_type == "nf4" for path in quantized)
    assert all(model.get_submodule(path).weight.quant_state.nested for path in quantized)
    assert not any(parameter.requires_grad for parameter in model.parameters())

    exact = load_base(base, FP32, CPU, **first_task(model_type))
    state = dict(model.named_parameters())
    for name, parameter in exact.named_parameters():
        if name.rpartition(".")[0] not in quantized and not name.startswith(
            ("score", "classifier", "bert.pooler")  # drawn anew
        ):
            assert torch.equal(state[name], parameter), name

    model.save_pretrained(tmp_path / "quantized")
    stored = BaseModelSpec(id="stored", source=str(tmp_path / "quantized"))
    facts = describe(stored)
    assert facts is not None and facts.quantized
    again = load_base(stored, FP32, CPU, quantization=QloraSpec(), **first_task(model_type))
    assert split_layers(again, family) == (quantized, dense)
    torch.testing.assert_close(logits_of(again), logits_of(model), rtol=1e-6, atol=1e-6)


def test_a_pass_without_gradients_leaves_quantized_layers_as_they_are(base_of):
    model = load_base(wide_base(base_of, "llama"), FP32, CPU, quantization=QloraSpec())
    embeddings = model.get_input_embeddings()(torch.arange(5, 25)[None])

    def gradient():
        inputs = embeddings.detach().requires_grad_()
        model(inputs_embeds=inputs).logits.square().mean().backward()
        return inputs.grad

    before = gradient()
    logits_of(model)
    assert torch.equal(gradient(), before)


def test_quantization_is_the_one_asked_for(base_of):
    spec = QloraSpec(quantization="fp4", double_quantization=False)
    model = load_base(wide_base(base_of, "llama"), FP32, CPU, quantization=spec)
    weight = model.model.layers[0].mlp.up_proj.weight
    assert (weight.quant_type, weight.quant_state.nested) == ("fp4", False)


@pytest.mark.parametrize("skipped", [None, ["lm_head"]], ids=["by default", "by name"])
@pytest.mark.parametrize("model_type", ["llama", "bert"])
def test_a_classifier_on_a_stored_quantized_base_has_a_dense_head(
    model_type, skipped, base_of, tmp_path
):
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BitsAndBytesConfig

    base, family = wide_base(base_of, model_type), family_of(model_type)
    model_class = AutoModelForMaskedLM if family.kind == "encoder" else AutoModelForCausalLM
    config = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=skipped)
    if model_type == "bert" and skipped:
        config.llm_int8_skip_modules = ["cls"]
    model_class.from_pretrained(base.source, quantization_config=config).save_pretrained(
        tmp_path / "quantized"
    )
    stored = BaseModelSpec(id="stored", source=str(tmp_path / "quantized"))
    model = load_base(stored, FP32, CPU, task="classification", labels=3)
    heads = tuple(f"{head}." for head in family.head)
    quantized, dense = split_layers(model, family)
    assert all(path.startswith(f"{family.blocks[0].stack}.") for path in quantized) and quantized
    assert len(dense) == len(heads)
    assert logits_of(model).isfinite().all()


def test_another_kind_of_quantization_is_refused(base_of):
    base = base_of("llama")
    file = Path(base.source) / "config.json"
    config = json.loads(file.read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    file.write_text(json.dumps(config))
    with pytest.raises(InvalidRequest, match="quantized with gptq"):
        load_base(base, FP32, CPU)


@pytest.mark.parametrize(
    ("flags", "format_"),
    [({"avx512f", "avx512_bf16"}, "bf16"), ({"amx_bf16"}, "bf16"), ({"avx2", "avx512f"}, None)],
)
def test_a_cpu_computes_in_bf16_only_where_it_multiplies_it(monkeypatch, flags, format_):
    monkeypatch.setattr(precision, "_cpu_flags", lambda: flags)
    assert sixteen_bits_of(CPU) == format_


@pytest.mark.parametrize(("native", "format_"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_computes_in_fp16_where_bf16_is_emulated(monkeypatch, native, format_):
    asked = []

    def is_bf16_supported(including_emulation):
        asked.append(including_emulation)
        return native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert sixteen_bits_of(torch.device("cuda")) == format_
    assert asked == [False]


def test_every_precision_has_its_dtype():
    for name in ("bf16", "fp16", "fp32"):
        assert name_of(dtype_of(name)) == name


def test_base_that_lacks_a_layer_of_its_config_is_refused(base_of):
    base = base_of("llama")
    path = Path(base.source) / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(InvalidRequest, match=r"lack 'model\.layers\.2\.") as refused:
        load_base(base, FP32, CPU)
    assert (refused.value.param, refused.value.code) == ("model", "unsupported_model")
