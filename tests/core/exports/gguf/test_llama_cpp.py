import pytest

from core.errors import InvalidRequest
from core.exports.gguf import llama_cpp as module
from core.exports.gguf.llama_cpp import CONVERTERS, ConversionFailed, LlamaCpp, find_llama_cpp


@pytest.fixture
def sources(tmp_path):
    for name in CONVERTERS:
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def test_what_is_missing_is_named_with_the_way_to_install_it(tmp_path, sources, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "llama_cpp" else name)
    with pytest.raises(InvalidRequest, match=r"llama_cpp is missing.*extra `gguf`") as refused:
        find_llama_cpp(sources)
    assert refused.value.code == "gguf_unavailable"
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    with pytest.raises(InvalidRequest, match="TUNESMITH_LLAMA_CPP is missing"):
        find_llama_cpp(None)
    with pytest.raises(InvalidRequest, match=r"other/convert_hf_to_gguf\.py"):
        find_llama_cpp(tmp_path / "other")
    assert find_llama_cpp(sources).folder == sources


def test_a_failed_process_says_how_it_ended(tmp_path):
    with pytest.raises(ConversionFailed, match="converter ended with status 1") as failed:
        LlamaCpp(tmp_path).run("converter", ("model", str(tmp_path), "{}", "a", "b", "f16", "name"))
    assert "No module named 'conversion'" in failed.value.message
    assert failed.value.code == "gguf_failed"
