"""A tiny Llama with a LoRA adapter that changes its answers, and what a bundle needs besides."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.adapters.adapted import AdaptedModel
from core.artifacts.bundle import BundleContents, write_bundle
from core.artifacts.card import CardFacts
from core.artifacts.metrics import StepMetrics
from core.spec.base_model import BaseModelSpec
from core.spec.events import DatasetValidated, ModelReady
from core.spec.job import JobSpec
from core.spec.strategy import LoraSpec
from core.spec.training import TrainingSpec

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
)


def tiny_llama() -> LlamaForCausalLM:
    """The same weights at every call."""
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=120,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="package")
def tuned() -> PeftModel:
    lora = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"], task_type="CAUSAL_LM"
    )
    model = get_peft_model(tiny_llama(), lora)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3, generator=generator)
    return model.eval()


@pytest.fixture(scope="package")
def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<pad>", "<|end|>", "<|user|>", "<|assistant|>"]
    backend.train_from_iterator(
        ["a list is a sequence of values"], trainers.BpeTrainer(special_tokens=special)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<|end|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture(scope="package")
def curve() -> tuple[StepMetrics, ...]:
    return (
        StepMetrics(1, 3.25, 0.125),
        StepMetrics(2, 1.625, 0.25, 1.25, 0.4),
        StepMetrics(3, 3.25 / 3, 0.375),
        StepMetrics(4, 0.8125, 0.5, 0.625, 0.8),
    )


@pytest.fixture(scope="package")
def contents(
    tuned: PeftModel, tokenizer: PreTrainedTokenizerFast, curve: tuple[StepMetrics, ...]
) -> BundleContents:
    trainable = {
        name.replace(".default.", "."): parameter
        for name, parameter in tuned.named_parameters()
        if parameter.requires_grad
    }
    base = BaseModelSpec(id="tiny-llama", source="/private/models/tiny-llama")
    spec = JobSpec(
        base=base,
        strategy=LoraSpec(rank=4, alpha=8),
        training=TrainingSpec(epochs=2, batch_size=3, learning_rate=1e-4),
        seed=20261123,
    )
    dataset = DatasetValidated(
        rows=1234, validation_rows=56, tokens=98765, targets=4321, total_steps=4
    )
    model = ModelReady(
        trainable_parameters=7777, total_parameters=88888, precision="fp32", device="cpu"
    )
    return BundleContents(
        adapted=AdaptedModel(tuned.get_base_model(), trainable, tuned.peft_config["default"]),
        step=4,
        tokenizer=tokenizer,
        card=CardFacts(spec=spec, dataset=dataset, model=model),
        curve=curve,
        row_losses_csv="line,epoch,loss\n1,1,2.5\n",
    )


@pytest.fixture(scope="package")
def shared_bundle(
    contents: BundleContents, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """One bundle for all tests that only read."""
    folder = tmp_path_factory.mktemp("shared") / "bundle"
    write_bundle(folder, contents)
    yield folder
