"""Every strategy answers on the endpoint as its bundle does in PEFT and transformers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from core.adapters.adapted import AdaptedModel
from core.batching.packing import collate
from core.batching.padding import pad
from core.batching.rows import Row, SourceTargetRow
from core.models.attention import use_packed_attention
from core.models.load import load_base, load_tokenizer
from core.models.log_probabilities import log_probabilities
from core.models.output_head import output_head
from core.spec.base_model import BaseModelSpec
from core.spec.generation import GenerationRequest, SamplingSpec, TokenPrompt
from core.spec.members import types_of
from core.spec.objective import Task
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
from core.strategies.load import load_adapter
from tests.core.engine.asking import DecodedById, Said, next_logprobs, said_of
from tests.core.engine.bundles import Bundle, write_bundle
from tests.core.tiny import ENCODER_DECODERS, save_base

PROMPTS = ((40, 41, 42), tuple(range(30, 70)), (100,))
GREEDY = SamplingSpec(max_tokens=6, temperature=0, seed=0, top_logprobs=0)
CLOSE_NATS = 1e-4
"""Between fp32 log-probabilities of the same token."""

STRATEGIES: dict[str, StrategySpec] = {
    "lora": LoraSpec(rank=4, alpha=8),
    "rslora": LoraSpec(rank=4, alpha=8, use_rslora=True, rank_pattern={"layers.1.mlp.up_proj": 2}),
    "dora": LoraSpec(rank=4, alpha=8, use_dora=True),
    "modules_to_save": LoraSpec(rank=4, target_modules="attention", modules_to_save=("lm_head",)),
    "qlora": QloraSpec(rank=4, alpha=8),
    "bottleneck": BottleneckSpec(reduction_factor=4, placement="houlsby"),
    "prefix": PrefixSpec(virtual_tokens=5),
    "prompt": PromptSpec(virtual_tokens=5, init_text="Answer"),
    "ia3": Ia3Spec(),
    "full": FullSpec(),
}

QUANTIZED = "llama of four bits"

COMBINATIONS = [
    (QUANTIZED, "lora"),
    (QUANTIZED, "prefix"),
    (QUANTIZED, "ia3"),
    *(("llama", name) for name in STRATEGIES),
    *((family, name) for family in ("gemma3_text", "gpt2") for name in ("prefix", "prompt")),
    *((family, name) for family in ("gemma2", "phi3", "gpt2") for name in ("lora", "ia3")),
    *(
        (family, name)
        for family in ENCODER_DECODERS
        for name in ("lora", "bottleneck", "prefix", "prompt", "ia3", "full")
    ),
]


def test_every_strategy_is_tested_here():
    assert {spec.type for spec in STRATEGIES.values()} == set(types_of(StrategySpec))


@pytest.fixture(params=COMBINATIONS, ids=["-".join(each) for each in COMBINATIONS])
def bundle(request, tmp_path, store) -> Bundle:
    family, strategy = request.param
    if family == QUANTIZED:
        base = _save_quantized_base(tmp_path)
    else:
        base = save_base(tmp_path / "base", family, eos_token_id=None)
    task: Task = "seq2seq" if family in ENCODER_DECODERS else "generation"
    return write_bundle(tmp_path / "bundle", store, base, STRATEGIES[strategy], task)


@pytest.fixture
def ask(make_engine, reader) -> Callable[[Bundle], tuple[list[Said], list[Said]]]:
    """Ask the tuned model and its base at once: all prompts of one are one padded batch."""

    def ask(bundle: Bundle) -> tuple[list[Said], list[Said]]:
        engine = make_engine(max_bases=2)
        answers: list[list] = []
        for adapter in (None, bundle.ref):
            for prompt in PROMPTS:
                asked = GenerationRequest(
                    id="r",
                    base=bundle.base,
                    adapter=adapter,
                    prompt=TokenPrompt(tokens=prompt),
                    sampling=GREEDY,
                )
                ready, token_bytes = reader.read(asked)
                answers.append([])
                engine.submit(ready, DecodedById(ready, token_bytes), answers[-1].append)
        while engine.step():
            pass
        said = [said_of(each) for each in answers]
        return said[len(PROMPTS) :], said[: len(PROMPTS)]

    return ask


def test_the_endpoint_answers_as_peft_and_transformers_do_and_as_training_did(bundle, ask):
    loaded, trained = _loaded(bundle), _in_training(bundle)
    for prompt, said, untuned in zip(PROMPTS, *ask(bundle), strict=True):
        expected_TV = next_logprobs(loaded, prompt, said.tokens)
        assert said.tokens == tuple(expected_TV.argmax(dim=-1).tolist())
        expected_T = expected_TV.max(dim=-1).values
        found_T = torch.tensor(said.logprobs)
        torch.testing.assert_close(found_T, expected_T, atol=CLOSE_NATS, rtol=0)
        training_T = _training_logprobs(trained, prompt, said.tokens)
        torch.testing.assert_close(found_T, training_T, atol=CLOSE_NATS, rtol=0)
        assert said.logprobs != pytest.approx(untuned.logprobs, abs=1e-3), "it changed nothing"


def _loaded(bundle: Bundle) -> nn.Module:
    """The bundle as someone else loads it; a bottleneck, which nobody else knows, by our layers."""
    source = bundle.base
    if isinstance(bundle.strategy, FullSpec):
        source = BaseModelSpec(id="whole", source=str(bundle.folder))
    model = _load(source, bundle.task)
    if isinstance(bundle.strategy, FullSpec):
        return model
    if isinstance(bundle.strategy, BottleneckSpec):
        load_adapter(model, bundle.folder, _tokenizer(bundle)).install()
        return model
    return PeftModel.from_pretrained(model, bundle.folder).eval()


def _in_training(bundle: Bundle) -> AdaptedModel:
    if isinstance(bundle.strategy, FullSpec):
        whole = BaseModelSpec(id="whole", source=str(bundle.folder))
        adapted = AdaptedModel(_load(whole, bundle.task), trainable={}, config=None)
    else:
        model = _load(bundle.base, bundle.task)
        adapted = load_adapter(model, bundle.folder, _tokenizer(bundle))
        adapted.install()
    if bundle.task == "generation":
        use_packed_attention(adapted.model)
    return adapted


def _save_quantized_base(folder: Path) -> BaseModelSpec:
    """Write a base whose own config says that it is quantized, as `…-bnb-4bit` on the hub."""
    dense = save_base(folder / "dense", "llama", eos_token_id=None)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(
        dense.source, dtype=torch.float32, quantization_config=config
    )
    model.save_pretrained(folder / "base")
    load_tokenizer(dense).save_pretrained(folder / "base")
    return BaseModelSpec(id="quantized", source=str(folder / "base"))


def _load(base: BaseModelSpec, task: Task) -> PreTrainedModel:
    return load_base(base, torch.float32, torch.device("cpu"), task=task)


def _tokenizer(bundle: Bundle) -> PreTrainedTokenizerFast:
    return load_tokenizer(bundle.base)


@torch.inference_mode()
def _training_logprobs(
    adapted: AdaptedModel, prompt: tuple[int, ...], said: tuple[int, ...]
) -> Tensor:
    model = adapted.model
    if model.config.is_encoder_decoder:
        row = SourceTargetRow(1, prompt, said)
        batch = pad([row], model.config.decoder_start_token_id, 0, model.device)
        states = adapted.decoder_states(batch).flatten(0, -2)
    else:
        trained = (False,) * len(prompt) + (True,) * len(said)
        batch = collate([Row(1, prompt + said, trained)], model.device)
        states = adapted.hidden_states(batch)
    return log_probabilities(states[batch.predicting_L], output_head(model), batch.targets_L)
