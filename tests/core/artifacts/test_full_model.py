"""The bundle of a fully trained model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from core.artifacts.bundle import BundleContents, write_bundle
from core.artifacts.manifest import MODEL_FILE, verify
from core.spec.objective import ClassificationSpec
from core.spec.strategy import FullSpec
from core.strategies.attach import attach
from tests.core.tiny import tiny_model


@pytest.fixture
def full_contents(contents: BundleContents) -> Any:
    """Return a builder: contents for a fully trained model, with changes of the job's spec."""

    def build(model: Any, **changes: Any) -> BundleContents:
        spec = contents.card.spec.model_copy(update={"strategy": FullSpec(), **changes})
        card = replace(contents.card, spec=spec)
        adapted = attach(model, spec.strategy, contents.tokenizer)
        return replace(contents, adapted=adapted, card=card)

    return build


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt2"])
def test_transformers_loads_the_bundle_and_gives_the_same_logits(
    full_contents: Any, tmp_path: Path, model_type: str
) -> None:
    """Gemma and GPT-2 tie the output matrix to the embeddings."""
    model = tiny_model(model_type)
    manifest = write_bundle(tmp_path / "bundle", full_contents(model))
    assert manifest.weights_file == MODEL_FILE
    verify(tmp_path / "bundle")
    assert sorted(path.name for path in (tmp_path / "bundle").glob("*.safetensors")) == [MODEL_FILE]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "bundle")
    ids = torch.arange(1, 21).reshape(2, 10)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "bundle").chat_template


def test_equal_models_give_equal_bytes_and_name_no_private_folder(
    full_contents: Any, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        saved = tmp_path / f"private-{name}"
        tiny_model().save_pretrained(saved)
        write_bundle(tmp_path / name, full_contents(AutoModelForCausalLM.from_pretrained(saved)))
    for path in (tmp_path / "a").iterdir():
        content = path.read_bytes()
        assert content == (tmp_path / "b" / path.name).read_bytes(), path.name
        assert b"private" not in content, path.name


def test_classifier_keeps_the_names_of_its_labels(full_contents: Any, tmp_path: Path) -> None:
    labels = ("bad", "fair", "good")
    model = tiny_model("bert", labels=3)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    objective = ClassificationSpec(labels=labels)
    write_bundle(
        tmp_path / "bundle", full_contents(model, task="classification", objective=objective)
    )
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "bundle")
    assert loaded.config.id2label == dict(enumerate(labels))
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert 'AutoModelForSequenceClassification.from_pretrained(".")' in card
    assert "/v1/classifications" in card
    assert "| objective.labels | bad, fair, good |" in card


def test_card_calls_it_a_model_of_its_own(full_contents: Any, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", full_contents(tiny_model()))
    card = (tmp_path / "bundle" / "README.md").read_text()
    _, front_matter, text = card.split("---\n", 2)
    assert yaml.safe_load(front_matter) == {
        "base_model": "tiny-llama",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["base_model:finetune:tiny-llama", "full", "tunesmith"],
    }
    assert "# tiny-llama, tuned" in text.splitlines()
    assert 'AutoModelForCausalLM.from_pretrained(".")' in text and "PeftModel" not in text
