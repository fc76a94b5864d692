"""The training data of both sides: a base, by default with random weights, and rows of real text.

The text is Python's own standard library: a function's signature and docstring are the prompt,
its body is the completion. It differs a little between patch releases of Python, so figures are
compared within one run only.
"""

import ast
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from core.models.tiny_build.stdlib import definitions, docstring_node, source_files

TOKENIZER_VOCABULARY = 16_384
USUAL_LENGTHS = range(24, 385)
"""The numbers of tokens that a row may have."""
TOKENIZER_TEXT_CHARACTERS = 3_000_000


@dataclass(frozen=True)
class ModelSize:
    """The dimensions of a Llama; the tokenizer uses the first 16,384 tokens of its vocabulary."""

    name: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int = TOKENIZER_VOCABULARY
    dtype: torch.dtype = torch.float32

    def matmul_parameters(self, labelled_share: float) -> float:
        """The parameters that multiply each token on average; the head only labelled tokens."""
        key_value = self.hidden_size * self.key_value_heads // self.heads
        attention = 2 * self.hidden_size * (self.hidden_size + key_value)
        layer = attention + 3 * self.hidden_size * self.intermediate_size
        return self.layers * layer + labelled_share * self.vocabulary * self.hidden_size


SMALL = ModelSize("27M", 384, 1024, 8, 6, 6)


@dataclass(frozen=True)
class BenchmarkData:
    """`base_folder` is a Hugging Face folder; `train_file` has prompt/completion rows."""

    base_folder: Path
    train_file: Path
    size: ModelSize = SMALL


def build(
    folder: Path,
    rows: int,
    seed: int,
    size: ModelSize = SMALL,
    lengths: range = USUAL_LENGTHS,
) -> BenchmarkData:
    """Write the base with its tokenizer, and `rows` rows of these lengths, into `folder`."""
    sources = [file.text for file in source_files()]
    tokenizer = _tokenizer(sources, seed)
    base_folder = folder / "base"
    tokenizer.save_pretrained(base_folder)
    _base_model(seed, size).save_pretrained(base_folder)
    train_file = _write_rows(folder, sources, tokenizer, rows, seed, lengths)
    return BenchmarkData(base_folder, train_file, size)


def build_on(
    base_folder: Path, folder: Path, rows: int, seed: int, lengths: range = USUAL_LENGTHS
) -> BenchmarkData:
    """Write rows for a Llama in a folder, with lengths measured by its tokenizer."""
    sources = [file.text for file in source_files()]
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    train_file = _write_rows(folder, sources, tokenizer, rows, seed, lengths)
    return BenchmarkData(base_folder.resolve(), train_file, size_of(base_folder))


def size_of(base_folder: Path) -> ModelSize:
    """Read the dimensions of a Llama from its folder."""
    config = json.loads((base_folder / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "llama":
        raise SystemExit(f"{base_folder} is a {config['model_type']}; benchmarks take a Llama")
    return ModelSize(
        base_folder.name,
        config["hidden_size"],
        config["intermediate_size"],
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["vocab_size"],
    )


def _write_rows(
    folder: Path,
    sources: list[str],
    tokenizer: PreTrainedTokenizerFast,
    rows: int,
    seed: int,
    lengths: range,
) -> Path:
    train_file = folder / "train.jsonl"
    with train_file.open("w", encoding="utf-8") as out:
        for prompt, completion in _fitting_rows(sources, tokenizer, rows, seed, lengths):
            out.write(json.dumps({"prompt": prompt, "completion": completion}) + "\n")
    return train_file


def _base_model(seed: int, size: ModelSize) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        return LlamaForCausalLM(config).to(size.dtype)


def _tokenizer(sources: list[str], seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, trained on a seeded sample of the sources."""
    sample, characters = [], 0
    for text in random.Random(seed).sample(sources, len(sources)):
        sample.append(text)
        characters += len(text)
        if characters > TOKENIZER_TEXT_CHARACTERS:
            break
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_VOCABULARY,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")


def _fitting_rows(
    sources: list[str],
    tokenizer: PreTrainedTokenizerFast,
    rows: int,
    seed: int,
    lengths: range,
) -> Iterator[tuple[str, str]]:
    functions = [pair for text in sources for pair in _documented_functions(text)]
    random.Random(seed).shuffle(functions)
    found = 0
    for prompt, completion in functions:
        tokens = len(tokenizer(prompt + completion).input_ids) + 1  # and the end of the text
        if tokens in lengths:
            yield prompt, completion
            found += 1
            if found == rows:
                return
    raise SystemExit(f"The standard library holds {found} fitting rows; {rows} were asked for.")


def _documented_functions(source: str) -> Iterator[tuple[str, str]]:
    """Yield (signature and docstring, body) of every function that has both."""
    lines = source.splitlines(keepends=True)
    for node in definitions(ast.parse(source)):
        docstring = docstring_node(node)
        if isinstance(node, ast.ClassDef) or docstring is None or len(node.body) < 2:
            continue
        split, end = docstring.end_lineno, node.end_lineno
        if split is not None and end is not None and split < end:
            yield "".join(lines[node.lineno - 1 : split]), "".join(lines[split:end])
