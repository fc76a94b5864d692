"""What the card of each kind of adapter says about its use."""

from dataclasses import replace

import pytest
import yaml

from core.artifacts.bundle import BundleContents
from core.artifacts.card import model_card
from core.spec.objective import ClassificationSpec, DpoSpec
from core.spec.strategy import BottleneckSpec, PrefixSpec


def card_of(contents: BundleContents, **changes: object) -> str:
    spec = contents.card.spec.model_copy(update=changes)
    return model_card(replace(contents.card, spec=spec), contents.curve, step=2)


def test_snippet_of_an_adapter_runs_it_with_peft(contents: BundleContents) -> None:
    card = card_of(contents, strategy=PrefixSpec(), task="seq2seq")
    assert 'AutoModelForSeq2SeqLM.from_pretrained("tiny-llama")' in card
    assert 'PeftModel.from_pretrained(base, ".")' in card
    assert "pipeline_tag: text2text-generation" in card.splitlines()
    assert "A `prefix` adapter" in card


def test_snippet_of_a_classifier_says_how_many_labels(contents: BundleContents) -> None:
    labels = tuple(f"label-{n}" for n in range(60))
    objective = ClassificationSpec(labels=labels)
    card = card_of(contents, task="classification", objective=objective)
    assert 'from_pretrained("tiny-llama", num_labels=60)' in card
    assert "label-49 and 10 more |" in card and "label-50" not in card
    assert "Targets are the texts" in card


def test_snippet_loads_a_quantized_base_as_it_was_trained(contents: BundleContents) -> None:
    for quantization, option in [("nf4", "load_in_4bit=True"), ("int8", "load_in_8bit=True")]:
        base = contents.card.spec.base.model_copy(update={"quantization": quantization})
        card = card_of(contents, base=base)
        assert f'("tiny-llama", quantization_config=BitsAndBytesConfig({option}' in card
        assert "AutoTokenizer, BitsAndBytesConfig" in card
    assert "BitsAndBytesConfig" not in card_of(contents)


def test_bottleneck_adapter_does_not_claim_to_load_in_peft(contents: BundleContents) -> None:
    card = card_of(contents, strategy=BottleneckSpec())
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "tunesmith"
    assert "PeftModel" not in card and "chat.completions.create" in card


@pytest.mark.parametrize(
    "line",
    ["| objective | dpo |", "| objective.beta | 0.1 |", "| evaluation.keep_best | True |"],
)
def test_card_lists_the_objective_and_the_evaluation(contents: BundleContents, line: str) -> None:
    assert line in card_of(contents, objective=DpoSpec()).splitlines()


def test_card_says_whose_step_the_weights_are(contents: BundleContents) -> None:
    assert "The weights are those after step 2." in card_of(contents)
