import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from core.artifacts.bundle import BundleContents, write_bundle
from core.artifacts.manifest import ADAPTER_FILE, read_manifest, sha256_of, verify
from core.spec.base_model import BaseModelSpec
from tests.core.artifacts.conftest import CHAT_TEMPLATE, tiny_llama


def test_peft_loads_the_bundle_and_gives_the_same_logits(
    shared_bundle: Path, tuned: PeftModel
) -> None:
    loaded = PeftModel.from_pretrained(tiny_llama(), str(shared_bundle))
    ids = torch.arange(1, 21).reshape(2, 10)
    with torch.no_grad():
        expected = tuned(ids).logits
        actual = loaded(ids).logits
        untuned = tiny_llama()(ids).logits
    assert torch.equal(actual, expected)
    assert not torch.allclose(untuned, expected, atol=1e-2)


def test_tokenizer_and_chat_template_load_from_the_bundle(
    shared_bundle: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    loaded = AutoTokenizer.from_pretrained(shared_bundle)
    messages = [{"role": "user", "content": "a list"}]
    assert loaded.chat_template == CHAT_TEMPLATE
    assert (shared_bundle / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    assert loaded.apply_chat_template(messages, tokenize=False) == "<|user|>a list<|end|>"
    assert loaded("a list of values").input_ids == tokenizer("a list of values").input_ids


def test_equal_contents_give_equal_bytes(
    shared_bundle: Path, contents: BundleContents, tmp_path: Path
) -> None:
    backwards = dict(reversed(contents.adapted.trainable.items()))
    adapted = replace(contents.adapted, trainable=backwards)
    write_bundle(tmp_path / "again", replace(contents, adapted=adapted))
    files = sorted(path.name for path in shared_bundle.iterdir())
    assert files == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (shared_bundle / name).read_bytes(), name


def test_config_lists_target_modules_in_one_order_whatever_the_hash_seed(
    shared_bundle: Path,
) -> None:
    config = json.loads((shared_bundle / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "up_proj", "v_proj"]
    assert config["inference_mode"] is True


def test_a_private_folder_is_never_named(shared_bundle: Path) -> None:
    config = json.loads((shared_bundle / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-llama"
    for path in shared_bundle.iterdir():
        assert b"/private" not in path.read_bytes(), path.name


def test_a_base_from_the_hub_is_named_by_its_id_and_revision(
    contents: BundleContents, tmp_path: Path
) -> None:
    base = BaseModelSpec(id="small", source="someone/small-model", revision="abc123")
    spec = contents.card.spec.model_copy(update={"base": base})
    card = replace(contents.card, spec=spec)
    write_bundle(tmp_path / "bundle", replace(contents, card=card))
    config = json.loads((tmp_path / "bundle" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (base.source, base.revision)
    manifest = read_manifest(tmp_path / "bundle")
    assert (manifest.base_model, manifest.base_revision) == (base.source, base.revision)
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert 'from_pretrained("someone/small-model", revision="abc123")' in card


def test_contents_stay_as_they_were(contents: BundleContents, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", contents)
    config = contents.adapted.config
    assert config.base_model_name_or_path != "tiny-llama"
    assert isinstance(config.target_modules, set)


def test_manifest_names_the_adapter_hash(shared_bundle: Path) -> None:
    assert verify(shared_bundle).weights_sha256 == sha256_of(shared_bundle / ADAPTER_FILE)


def test_an_earlier_bundle_is_replaced(
    shared_bundle: Path, contents: BundleContents, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(shared_bundle, folder)
    (folder / "left-over.txt").write_text("of an earlier run")
    write_bundle(folder, contents)
    verify(folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_card_has_front_matter_for_the_hub(shared_bundle: Path) -> None:
    _, front_matter, _ = (shared_bundle / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front_matter) == {
        "base_model": "tiny-llama",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["base_model:adapter:tiny-llama", "lora", "tunesmith"],
    }


@pytest.mark.parametrize(
    "line",
    [
        "| Training | 1,234 | 98,765 | 4,321 |",
        "| Validation | 56 |  |  |",
        "| strategy.rank | 4 |",
        "| training.epochs | 2 |",
        "| training.batch_size | 3 |",
        "| training.learning_rate | 0.0001 |",
        "| seed | 20261123 |",
        "| trainable parameters | 7,777 of 88,888 |",
        "| precision used | fp32 |",
        "| 1 | 3.2500 |  |",
        "| 2 | 1.6250 | 1.2500 |",
        "| 4 | 0.8125 | 0.6250 |",
        "![Loss by step](loss.png)",
    ],
)
def test_card_states_data_hyperparameters_and_metrics(shared_bundle: Path, line: str) -> None:
    assert line in (shared_bundle / "README.md").read_text().splitlines()


def test_plot_is_a_picture(shared_bundle: Path) -> None:
    assert (shared_bundle / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_run_without_steps_can_be_bundled(contents: BundleContents, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", replace(contents, curve=()))
    verify(tmp_path / "bundle")
