"""What a base's folder says about its vectors, in the files of sentence-transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import InvalidRequest
from core.models.embedder import Embedder, pool, read_embedder
from core.spec.base_model import BaseModelSpec
from core.spec.embedding import PoolingSpec
from tests.core.tiny import save_base

BOTH = {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}
CLASSES = "sentence_transformers.models."


def write(folder: Path, **files: Any) -> None:
    """Write files by their path, in which `__` stands for a slash."""
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")


def modules(*names: str) -> list[dict[str, Any]]:
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    return [
        {"idx": index, "path": paths.get(name, f"{index}_{name}"), "type": CLASSES + name}
        for index, name in enumerate(names)
    ]


@pytest.fixture
def bert(tmp_path: Path) -> BaseModelSpec:
    return save_base(tmp_path / "bert", "bert")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Embedder(32, "mean", is_normalized=True)),
        (
            {"1_Pooling__config": {"pooling_mode_cls_token": True}},
            Embedder(32, "cls", is_normalized=True),
        ),
        (
            {
                "modules": modules("Transformer", "Pooling", "Normalize"),
                "1_Pooling__config": {
                    "word_embedding_dimension": 32,
                    "pooling_mode_cls_token": False,
                    "pooling_mode_mean_tokens": True,
                    "include_prompt": True,
                },
                "sentence_bert_config": {"max_seq_length": 20, "do_lower_case": True},
            },
            Embedder(32, "mean", is_normalized=True, max_tokens=20, lowers_case=True),
        ),
        (
            {
                "modules": modules("Transformer", "Pooling"),
                "1_Pooling__config": {"embedding_dimension": 32, "pooling_mode": "max"},
            },
            Embedder(32, "max", is_normalized=False),
        ),
    ],
    ids=["no files", "pooling alone", "MiniLM", "newer names"],
)
def test_files_of_an_encoder_are_followed(
    bert: BaseModelSpec, files: dict[str, Any], expected: Embedder
) -> None:
    write(Path(bert.source), **files)
    assert read_embedder(bert) == expected


def test_decoder_embeds_only_if_its_files_say_so(tmp_path: Path) -> None:
    base = save_base(tmp_path / "qwen3", "qwen3")
    assert read_embedder(base) is None
    write(
        Path(base.source),
        modules=modules("Transformer", "Pooling", "Normalize"),
        **{"1_Pooling__config": {"pooling_mode_lasttoken": True, "pooling_mode_cls_token": False}},
    )
    assert read_embedder(base) == Embedder(32, "lasttoken", is_normalized=True)


def test_encoder_decoder_embeds_nothing(tmp_path: Path) -> None:
    assert read_embedder(save_base(tmp_path / "t5", "t5")) is None


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"modules": modules("Transformer", "Pooling", "Dense")}, "Dense"),
        ({"1_Pooling__config": {"pooling_mode_weightedmean_tokens": True}}, "weightedmean"),
        ({"1_Pooling__config": BOTH}, "cls, max"),
        ({"1_Pooling__config": {"pooling_mode": "attention"}}, "attention"),
        ({"modules": "not a list of modules"}, "unusable modules.json"),
        ({"sentence_bert_config": {"max_seq_length": "long"}}, "unusable sentence_bert_config"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    bert: BaseModelSpec, files: dict[str, Any], named: str
) -> None:
    """A vector of another pooling would look like a good one."""
    write(Path(bert.source), **files)
    with pytest.raises(InvalidRequest, match=named) as caught:
        read_embedder(bert)
    assert caught.value.code == "unsupported_model"


def test_vectors_are_shortened_before_they_are_normalized() -> None:
    texts = [torch.tensor([[3.0, 4.0, 9.0], [3.0, 4.0, -1.0]]), torch.tensor([[0.0, 2.0, 5.0]])]
    short = pool(texts, PoolingSpec(mode="mean", is_normalized=True, dimensions=2))
    torch.testing.assert_close(short, torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    plain = pool(texts, PoolingSpec(mode="lasttoken", is_normalized=False))
    torch.testing.assert_close(plain, torch.tensor([[3.0, 4.0, -1.0], [0.0, 2.0, 5.0]]))
