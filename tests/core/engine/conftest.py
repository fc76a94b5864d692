"""A random Llama of two layers, a byte-level tokenizer and adapters that change its answers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from core.artifacts.archive import pack
from core.artifacts.manifest import write_manifest
from core.busy_file import BusyFile
from core.engine.adapters import AdapterFiles
from core.engine.device.runner import BaseLoader, Runner
from core.engine.engine import Engine
from core.engine.metrics import EngineMetrics
from core.engine.policy.scheduler import Scheduler
from core.engine.policy.step import Limits
from core.engine.text.prompts import PromptReader
from core.engine.text.vocabulary import Vocabulary, read_vocabulary
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.job import JobSpec
from core.spec.strategy import LoraSpec
from core.storage.blobs import BlobStore
from core.storage.open import open_store
from tests.core.engine.asking import Asker

CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "Numbers 1 2 3 and words, and some more words; then an end.",
    "größer, naïve, 東京, emoji 🙂🚀 and 👩‍👩‍👧.",
] * 4

CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        additional_special_tokens=["<|start|>", "<|end|>"],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast):
    """The base's spec; its folder is complete."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 5,  # padded beyond the vocabulary, as real models are
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,  # far-apart logits: greedy choices are not near ties
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return BaseModelSpec(id="tiny", source=str(folder))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    return open_store(tmp_path_factory.mktemp("storage"))


@pytest.fixture(scope="session")
def adapter_folders(tmp_path_factory, base, tokenizer) -> list[Path]:
    """Four bundles as training writes them, with ranks 2, 4, 2, 4."""
    folders = []
    for index, rank in enumerate([2, 4, 2, 4]):
        folder = tmp_path_factory.mktemp("bundle") / "bundle"
        torch.manual_seed(100 + index)
        model = LlamaForCausalLM.from_pretrained(base.source)
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj", "down_proj"]
        )
        tuned = get_peft_model(model, config)
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
        tuned.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        strategy = LoraSpec(
            rank=rank, alpha=2 * rank, target_modules=("q_proj", "v_proj", "down_proj")
        )
        write_manifest(folder, JobSpec(base=base, strategy=strategy, seed=0))
        folders.append(folder)
    return folders


@pytest.fixture(scope="session")
def adapters(adapter_folders, store, tmp_path_factory) -> list[BundleRef]:
    """The same four as archives in storage."""
    refs = []
    for index, folder in enumerate(adapter_folders):
        archive = tmp_path_factory.mktemp("archive") / "bundle.zip"
        sha256 = pack(folder, archive)
        key = f"bundles/job-{index}/final.zip"
        store.write_file(key, archive)
        refs.append(BundleRef(key=key, sha256=sha256))
    return refs


@pytest.fixture(scope="session")
def files(store, tmp_path_factory) -> AdapterFiles:
    return AdapterFiles(store, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def loader(files) -> BaseLoader:
    """Bases in fp32, each with a cache for about a thousand tokens and four adapters."""
    return make_loader(files)


def make_loader(files: AdapterFiles, max_adapters: int = 4) -> BaseLoader:
    cpu = torch.device("cpu")
    cache_bytes = 400 * 2**10
    return BaseLoader(cpu, files.folder, cache_bytes=cache_bytes, max_adapters=max_adapters)


@pytest.fixture(scope="session")
def reader(files, loader) -> PromptReader:
    return PromptReader(files, loader.cache_tokens)


@pytest.fixture
def make_engine(files) -> Callable[..., Engine]:
    """Make an engine that the test steps by hand; limits by name."""

    def make(busy_file: BusyFile | None = None, **limits: int) -> Engine:
        defaults = {
            "max_sequences": 16,
            "max_waiting": 64,
            "max_step_tokens": 48,
            "max_bases": 1,
            "max_adapters": 4,
        }
        bounds = Limits(**defaults | limits)
        loader = make_loader(files, bounds.max_adapters)
        scheduler, runner = Scheduler(bounds, loader.pool), Runner(loader.load, bounds.max_bases)
        metrics = EngineMetrics(scheduler, runner, loader.adapters)
        return Engine(scheduler, runner, metrics, busy_file)

    return make


@pytest.fixture
def asker(make_engine, reader, base) -> Asker:
    return Asker(make_engine(), reader, base)


@pytest.fixture
def reference(base):
    return AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32).eval()


@pytest.fixture
def tuned(reference, adapter_folders):
    return PeftModel.from_pretrained(reference, adapter_folders[0]).eval()


@pytest.fixture
def calling(base) -> Vocabulary:
    """The vocabulary of a model whose template writes calls."""
    vocabulary = read_vocabulary(base, None)
    calls = "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}"
    vocabulary.tokenizer.chat_template = (
        "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}"
        + calls
        + "<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    return vocabulary
