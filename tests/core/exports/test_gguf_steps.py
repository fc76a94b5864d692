"""Exports as GGUF through the steps of an export, run by llama.cpp."""

from pathlib import Path

import pytest

import core.models
from core.spec.base_model import BaseModelSpec
from core.spec.strategy import LoraSpec
from tests.core.engine.bundles import write_bundle
from tests.core.exports.exporting import export, options_for
from tests.llama_cpp_sources import llama_cpp_or_skip

TINY = BaseModelSpec(id="tunesmith/tiny", source=str(Path(core.models.__file__).parent / "tiny"))

CASES = {
    "f16": {"format": "gguf", "quantization": "f16"},
    "q4_k_m": {"format": "gguf", "quantization": "q4_k_m"},
    "adapter": {"format": "adapter-gguf", "form": "adapter"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_gguf_export_is_replayed_by_llama_cpp(tmp_path, store, case):
    folder = llama_cpp_or_skip().folder
    bundle = write_bundle(tmp_path / "bundle", store, TINY, LoraSpec(rank=2))
    found = export(bundle, options_for(**CASES[case]), tmp_path / "out", llama_cpp=folder)
    assert found.status == "passed" or case == "q4_k_m", found.reason  # random weights
    assert found.distance.adapter_share == pytest.approx(1, abs=0.2)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"Modelfile", "adapter.gguf" if case == "adapter" else "model.gguf"}
