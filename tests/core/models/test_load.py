import pytest
import torch

from core.errors import NotFound
from core.models import precision
from core.models.load import load_base, load_config, load_tokenizer
from core.models.precision import resolve_precision
from core.spec.run import BaseModelSpec

CPU = torch.device("cpu")


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
    assert (caught.value.code, caught.value.param) == ("base_not_found", "model")
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ({"avx512f", "avx512_bf16"}, torch.bfloat16),
        ({"amx_bf16"}, torch.bfloat16),
        ({"avx2", "avx512f"}, torch.float32),
    ],
)
def test_auto_is_bf16_only_where_the_cpu_multiplies_it(monkeypatch, flags, dtype):
    monkeypatch.setattr(precision, "_cpu_flags", lambda: flags)
    assert resolve_precision("auto", CPU) == dtype
    assert resolve_precision("bf16", CPU) == torch.bfloat16
    assert resolve_precision("fp32", CPU) == torch.float32
