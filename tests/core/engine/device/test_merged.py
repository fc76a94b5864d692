"""A merged model answers as PEFT's own merge does, quantized as bitsandbytes quantizes that."""

from typing import Any

import pytest
import torch

from core.engine.text.texts import TextsAnswer
from core.errors import InvalidRequest
from core.spec.base_model import BaseModelSpec
from core.spec.classification import ClassificationRequest
from core.spec.generation import GenerationRequest, TokenPrompt
from core.spec.objective import ClassificationSpec
from core.spec.serving import ServingSpec
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
    StrategySpec,
)
from tests.core.engine.asking import DecodedById, next_logprobs, said_of
from tests.core.engine.bundles import Bundle, write_bundle
from tests.core.engine.device.test_quantized_bases import GREEDY, require_said
from tests.core.engine.own_weights import merged, plain, quantized
from tests.core.engine.test_strategies import PROMPTS
from tests.core.tiny import save_base

LABELS = ClassificationSpec(labels=("spam", "ham", "other"))

COMBINATIONS: dict[str, tuple[str, StrategySpec]] = {
    "lora": ("llama", LoraSpec(rank=4, alpha=8)),
    "rslora": (
        "llama",
        LoraSpec(rank=4, use_rslora=True, rank_pattern={"layers.1.mlp.up_proj": 2}),
    ),
    "dora": ("llama", LoraSpec(rank=4, alpha=8, use_dora=True)),
    "qlora": ("llama", QloraSpec(rank=4, alpha=8)),
    "whole head": ("llama", LoraSpec(rank=4, modules_to_save=("lm_head",))),
    "whole module": (
        "llama",
        LoraSpec(rank=4, target_modules="attention", modules_to_save=("mlp",)),
    ),
    "gemma": ("gemma3_text", LoraSpec(rank=4, alpha=8)),
    "gpt2": ("gpt2", LoraSpec(rank=4, alpha=8)),
    "gpt2 dora": ("gpt2", LoraSpec(rank=4, alpha=8, use_dora=True)),
    "t5": ("t5", LoraSpec(rank=4, alpha=8)),
    "ia3": ("llama", Ia3Spec()),
    "gpt2 ia3": ("gpt2", Ia3Spec()),
}


@pytest.fixture(params=[None, "nf4", "int8"], ids=["dense", "nf4", "int8"])
def quantization(request) -> Any:
    return request.param


def form(quantization) -> ServingSpec:
    return ServingSpec(form="merged", quantization=quantization)


def asked_of(bundle: Bundle, prompt, serving: ServingSpec, base: BaseModelSpec | None = None):
    return GenerationRequest(
        id="r",
        base=base or bundle.base,
        adapter=bundle.ref,
        serving=serving,
        prompt=TokenPrompt(tokens=prompt),
        sampling=GREEDY,
    )


def ask(engine, reader, requests):
    answers: list[list] = []
    for asked in requests:
        ready, token_bytes = reader.read(asked)
        answers.append([])
        engine.submit(ready, DecodedById(ready, token_bytes), answers[-1].append)
    while engine.step():
        pass
    return [said_of(each) for each in answers]


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_merged_answers_are_those_of_pefts_merge(
    tmp_path, store, make_engine, reader, combination, quantization
):
    model_type, strategy = COMBINATIONS[combination]
    task = "seq2seq" if model_type == "t5" else "generation"
    base = save_base(tmp_path / "base", model_type, eos_token_id=None)
    bundle = write_bundle(tmp_path / "bundle", store, base, strategy, task)
    model = quantized(merged(base, bundle.folder, task=task), quantization, tmp_path / "reference")
    requests = [asked_of(bundle, prompt, form(quantization)) for prompt in PROMPTS]
    for prompt, said in zip(PROMPTS, ask(make_engine(), reader, requests), strict=True):
        require_said(said, model, prompt)
        untuned = next_logprobs(plain(base, task), prompt, said.tokens).max(dim=-1).values
        assert said.logprobs != pytest.approx(untuned.tolist(), abs=1e-3), "it changed nothing"


def test_a_model_that_was_trained_on_a_quantized_base_is_merged_into_the_plain_one(
    tmp_path, store, make_engine, reader, quantization
):
    stored = save_base(tmp_path / "base", eos_token_id=None)
    base = stored.model_copy(update={"quantization": "nf4"})
    bundle = write_bundle(tmp_path / "bundle", store, base, LoraSpec(rank=4, alpha=8))
    model = quantized(merged(base, bundle.folder), quantization, tmp_path / "reference")
    [said] = ask(make_engine(), reader, [asked_of(bundle, PROMPTS[0], form(quantization))])
    require_said(said, model, PROMPTS[0])


def test_a_model_that_was_trained_whole_can_be_quantized(
    tmp_path, store, make_engine, reader, quantization
):
    base = save_base(tmp_path / "base", eos_token_id=None)
    bundle = write_bundle(tmp_path / "bundle", store, base, FullSpec())
    whole = BaseModelSpec(id="whole", source=str(bundle.folder))
    model = quantized(plain(whole), quantization, tmp_path / "reference")
    [said] = ask(make_engine(), reader, [asked_of(bundle, PROMPTS[0], form(quantization))])
    require_said(said, model, PROMPTS[0])


@pytest.mark.parametrize("model_type", ["llama", "bert"])
def test_a_merged_classifier_keeps_its_head(
    tmp_path, store, make_engine, reader, model_type, quantization
):
    base = save_base(tmp_path / "base", model_type, eos_token_id=None)
    bundle = write_bundle(
        tmp_path / "bundle", store, base, LoraSpec(rank=4), "classification", LABELS
    )
    asked = ClassificationRequest(
        id="r",
        base=base,
        adapter=bundle.ref,
        serving=form(quantization),
        texts=("a short text", "another text"),
    )
    ready, engine, items = reader.read_texts(asked), make_engine(), []
    engine.submit(ready, TextsAnswer(ready), items.append)
    while engine.step():
        pass
    labels = len(LABELS.labels)
    model = merged(base, bundle.folder, task="classification", labels=labels)
    model = quantized(model, quantization, tmp_path / "reference")
    model.config.pad_token_id = 0
    [read] = items
    for scores, tokens in zip(read.results, ready.texts, strict=True):
        with torch.inference_mode():
            logits_N = model(torch.tensor([tokens])).logits[0]
        expected = logits_N.softmax(dim=-1).tolist()
        assert scores == pytest.approx(expected, abs=1e-4)


def test_merged_and_adapter_form_stand_beside_each_other_and_beside_the_base(
    tmp_path, store, make_engine, reader
):
    base = save_base(tmp_path / "base", eos_token_id=None)
    bundle = write_bundle(tmp_path / "bundle", store, base, LoraSpec(rank=4, alpha=8))
    engine = make_engine(max_bases=3)
    forms = [ServingSpec(), form(None), form("nf4"), ServingSpec()]
    said = ask(engine, reader, [asked_of(bundle, PROMPTS[1], each) for each in forms])
    assert said[0].tokens == said[1].tokens == said[3].tokens
    assert said[0].logprobs == pytest.approx(said[1].logprobs, abs=1e-4)
    own = f"{base.id}/{bundle.ref.sha256[:12]}"
    resident = {(each.spec.id, each.spec.quantization) for each in engine.runner.resident_bases()}
    assert resident == {(base.id, None), (own, None), (own, "nf4")}


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        (BottleneckSpec(reduction_factor=4), "adds layers between"),
        (PrefixSpec(virtual_tokens=2), "keys and values"),
        (PromptSpec(virtual_tokens=2), "embeddings"),
    ],
)
def test_what_is_no_change_of_weights_is_not_merged(tmp_path, store, reader, strategy, reason):
    base = save_base(tmp_path / "base")
    bundle = write_bundle(tmp_path / "bundle", store, base, strategy)
    with pytest.raises(InvalidRequest, match=reason) as caught:
        reader.read(asked_of(bundle, (1,), form(None)))
    assert caught.value.code == "not_mergeable"
