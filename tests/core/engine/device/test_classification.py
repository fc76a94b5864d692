"""Scores of tuned classifiers, held against PEFT and transformers one text at a time."""

from collections.abc import Callable

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from core.engine.text.texts import TextsAnswer, TextsRead, classification_answer
from core.errors import InvalidRequest, Unavailable
from core.models.load import load_tokenizer
from core.spec.classification import ClassificationRequest
from core.spec.generation import GenerationRequest, SamplingSpec, TextPrompt
from core.spec.objective import ClassificationSpec
from core.spec.strategy import FullSpec, LoraSpec, PrefixSpec, PromptSpec, StrategySpec
from tests.core.engine.bundles import Bundle, write_bundle
from tests.core.tiny import save_base

TEXTS = ("abcd", "A much longer text, of many more tokens than the others have.", "x y")
THREE = ClassificationSpec(labels=("good", "bad", "ugly"))
TAGS = ClassificationSpec(labels=("red", "round"), multi_label=True)

COMBINATIONS: list[tuple[str, StrategySpec, ClassificationSpec]] = [
    ("bert", LoraSpec(rank=2), THREE),
    ("bert", FullSpec(), TAGS),
    ("bert", PromptSpec(virtual_tokens=3), THREE),
    ("modernbert", LoraSpec(rank=2), TAGS),
    ("llama", LoraSpec(rank=2), THREE),
    ("llama", PrefixSpec(virtual_tokens=3), TAGS),
    ("gpt2", FullSpec(), THREE),
]


@pytest.fixture
def make_bundle(tmp_path, store) -> Callable[..., Bundle]:
    def make(family: str, strategy: StrategySpec, objective: ClassificationSpec) -> Bundle:
        folder = tmp_path / f"{family}-{strategy.type}-{len(objective.labels)}"
        padding = {} if family in ("bert", "modernbert") else {"pad_token_id": 0}
        base = save_base(tmp_path / family, family, **padding)
        return write_bundle(folder, store, base, strategy, "classification", objective)

    return make


@pytest.fixture
def ask(make_engine, reader) -> Callable[..., list[list[dict[str, float]]]]:
    """Send the texts to each bundle, all at once, and return the scores of each."""
    engine = make_engine(max_bases=1, max_adapters=2)

    def ask(*bundles: Bundle, texts=TEXTS) -> list[list[dict[str, float]]]:
        asked = [reader.read_texts(_asked(bundle, texts)) for bundle in bundles]
        answers: list[list[TextsRead]] = [[] for _ in asked]
        for ready, items in zip(asked, answers, strict=True):
            engine.submit(ready, TextsAnswer(ready), items.append)
        while engine.step():
            pass
        assert not engine.scheduler.running
        assert not engine._tickets
        return [
            list(classification_answer(ready, read.results).scores)
            for ready, [read] in zip(asked, answers, strict=True)
        ]

    return ask


def _asked(bundle: Bundle, texts=TEXTS) -> ClassificationRequest:
    return ClassificationRequest(id="r", base=bundle.base, adapter=bundle.ref, texts=texts)


@torch.inference_mode()
def _expected(bundle: Bundle, objective: ClassificationSpec) -> Tensor:
    labels = len(objective.labels)
    source = bundle.folder if isinstance(bundle.strategy, FullSpec) else bundle.base.source
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=labels)
    if not isinstance(bundle.strategy, FullSpec):
        model = PeftModel.from_pretrained(model, bundle.folder)
    tokenizer = load_tokenizer(bundle.base)
    rows = [model.eval()(**tokenizer(text, return_tensors="pt")).logits[0] for text in TEXTS]
    logits_BN = torch.stack(rows)
    return logits_BN.sigmoid() if objective.multi_label else logits_BN.softmax(dim=-1)


@pytest.mark.parametrize(
    ("family", "strategy", "objective"),
    COMBINATIONS,
    ids=[f"{f}-{s.type}" for f, s, _ in COMBINATIONS],
)
def test_scores_equal_those_of_the_loaded_bundle(family, strategy, objective, make_bundle, ask):
    bundle = make_bundle(family, strategy, objective)
    [found] = ask(bundle)
    assert all(tuple(scores) == objective.labels for scores in found)
    found_BN = torch.tensor([list(scores.values()) for scores in found])
    torch.testing.assert_close(found_BN, _expected(bundle, objective), atol=1e-5, rtol=0)


def test_one_base_serves_classifiers_with_different_numbers_of_labels(make_bundle, ask):
    bundles = [make_bundle("bert", LoraSpec(rank=2), each) for each in (THREE, TAGS)]
    together = ask(*bundles, *bundles)
    for bundle, objective, found in zip(bundles * 2, (THREE, TAGS) * 2, together, strict=True):
        found_BN = torch.tensor([list(scores.values()) for scores in found])
        torch.testing.assert_close(found_BN, _expected(bundle, objective), atol=1e-5, rtol=0)


def test_more_texts_than_a_batch_holds_are_all_scored(make_bundle, ask):
    bundle = make_bundle("bert", LoraSpec(rank=2), THREE)
    [found] = ask(bundle, texts=TEXTS * 10)
    for index, scores in enumerate(found):
        assert scores == pytest.approx(found[index % len(TEXTS)], abs=1e-5)


def test_a_classifier_writes_no_text(make_bundle, reader):
    bundle = make_bundle("llama", LoraSpec(rank=2), THREE)
    asked = GenerationRequest(
        id="r",
        base=bundle.base,
        adapter=bundle.ref,
        prompt=TextPrompt(text="Hello"),
        sampling=SamplingSpec(seed=0),
    )
    with pytest.raises(InvalidRequest, match="/v1/classifications") as caught:
        reader.read(asked)
    assert (caught.value.code, caught.value.param) == ("not_a_generator", "model")


def test_an_encoder_that_was_not_tuned_neither_writes_nor_labels(reader, tmp_path):
    base = save_base(tmp_path, "bert")
    prompt, sampling = TextPrompt(text="Hello"), SamplingSpec(seed=0)
    with pytest.raises(InvalidRequest, match="encoder") as caught:
        reader.read(GenerationRequest(id="r", base=base, prompt=prompt, sampling=sampling))
    assert caught.value.code == "not_a_generator"
    with pytest.raises(InvalidRequest) as caught:
        reader.read_texts(ClassificationRequest(id="r", base=base, texts=TEXTS))
    assert caught.value.code == "not_a_classifier"


def test_a_generator_labels_nothing(reader, base, adapters):
    for adapter in (None, adapters[0]):
        asked = ClassificationRequest(id="r", base=base, adapter=adapter, texts=TEXTS)
        with pytest.raises(InvalidRequest, match="classification") as caught:
            reader.read_texts(asked)
        assert (caught.value.code, caught.value.param) == ("not_a_classifier", "model")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty_prompt"),
        ("word " * 60, "context_length_exceeded"),
        ("w" * 20_000, "context_length_exceeded"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_with_its_place(text, code, make_bundle, reader):
    bundle = make_bundle("llama", LoraSpec(rank=2), THREE)
    with pytest.raises(InvalidRequest) as caught:
        reader.read_texts(_asked(bundle, ("fine", text)))
    assert (caught.value.code, caught.value.param) == (code, "input")


def test_a_full_queue_refuses_texts(make_bundle, make_engine, reader):
    bundle = make_bundle("bert", LoraSpec(rank=2), THREE)
    engine = make_engine(max_waiting=2)
    ready = reader.read_texts(_asked(bundle))
    engine.submit(ready, TextsAnswer(ready), print)
    with pytest.raises(Unavailable) as caught:
        engine.submit(ready, TextsAnswer(ready), print)
    assert caught.value.code == "queue_full"
