import json
from pathlib import Path
from typing import Literal

import pytest

from core.catalog.bases import Catalog
from core.catalog.describe import BaseFacts, describe
from core.catalog.families import RELATIVE_CONTEXT_LENGTH
from core.errors import InvalidRequest
from core.spec.base_model import BaseModelSpec


def base(source: Path | str) -> BaseModelSpec:
    return BaseModelSpec(id="acme/mine", source=str(source))


def test_a_folder_tells_its_family_and_its_context(tmp_path: Path) -> None:
    config = {"model_type": "qwen3", "max_position_embeddings": 2048, "vocab_size": 9}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert describe(base(tmp_path)) == BaseFacts("qwen3", 2048)


def test_a_quantized_base_says_so(tmp_path: Path) -> None:
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    config = {"model_type": "llama", "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"quantization_config": quantization})
    )
    assert describe(base(tmp_path)) == BaseFacts("llama", 64, quantized=True)


@pytest.mark.parametrize(
    ("config", "context_length"),
    [
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "bart", "max_position_embeddings": 1024}, 1024),
        ({"model_type": "t5", "n_positions": 512}, RELATIVE_CONTEXT_LENGTH),
        ({"model_type": "t5"}, RELATIVE_CONTEXT_LENGTH),
    ],
)
def test_the_context_stands_where_the_family_writes_it(
    config: dict[str, object], context_length: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    facts = describe(base(tmp_path))
    assert facts is not None and facts.context_length == context_length


def test_the_tiny_base_is_described() -> None:
    facts = describe(Catalog.load().resolve("tunesmith/tiny"))
    assert facts is not None
    assert facts.model_type == "llama"
    assert facts.context_length >= 512


def test_what_is_not_on_this_machine_is_left_to_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert describe(base(tmp_path / "nowhere")) is None
    (tmp_path / "acme").mkdir()
    monkeypatch.chdir(tmp_path)
    assert describe(base("acme")) is None  # a Hugging Face id, whatever lies about here


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "its folder has no config.json"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "has no model_type"),
        (b"{}", "has no model_type"),
        (b'{"model_type": 3}', "has no model_type"),
        (b'{"model_type": "llama"}', "has no max_position_embeddings"),
        (b'{"model_type": "gpt2"}', "has no n_positions"),
        (b'{"model_type": "mamba"}', "Models of type 'mamba' are not supported"),
        (
            b'{"model_type": "llama", "max_position_embeddings": 9, '
            b'"quantization_config": {"quant_method": "gptq", "bits": 4}}',
            "quantized with gptq, which cannot be trained here",
        ),
    ],
)
def test_a_folder_without_a_usable_config_is_refused(
    config: bytes | None, words: str, tmp_path: Path
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(InvalidRequest, match=words) as raised:
        describe(base(tmp_path))
    assert (raised.value.code, raised.value.param) == ("unsupported_model", "model")


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("asked", [None, "nf4", "int8"])
def test_a_base_is_quantized_by_its_files_or_by_its_entry_but_not_twice(
    tmp_path: Path, stored: bool, asked: Literal["nf4", "int8"] | None
) -> None:
    config = {"model_type": "llama", "max_position_embeddings": 9}
    if stored:
        config |= {"quantization_config": {"quant_method": "bitsandbytes"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = base(tmp_path).model_copy(update={"quantization": asked})
    if stored and asked:
        with pytest.raises(InvalidRequest, match="are already quantized"):
            describe(spec)
        return
    facts = describe(spec)
    assert facts is not None and facts.quantized == bool(stored or asked)
