"""What both sides train on: one base model of 27 million parameters and rows of real text.

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
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.models.tiny_build.stdlib import definitions, docstring_node, source_files

VOCABULARY = 16_384
SHORTEST_ROW_TOKENS = 24
LONGEST_ROW_TOKENS = 384
TOKENIZER_TEXT_CHARACTERS = 3_000_000


@dataclass(frozen=True)
class BenchmarkData:
    """`base_folder` is a Hugging Face folder; `train_file` holds prompt/completion rows."""

    base_folder: Path
    train_file: Path


def build(folder: Path, rows: int, seed: int) -> BenchmarkData:
    """Write the base with its tokenizer, and `rows` rows of 24 to 384 tokens, into `folder`."""
    sources = [file.text for file in source_files()]
    tokenizer = _tokenizer(sources, seed)
    base_folder = folder / "base"
    tokenizer.save_pretrained(base_folder)
    _base_model(seed).save_pretrained(base_folder)
    train_file = folder / "train.jsonl"
    with train_file.open("w", encoding="utf-8") as out:
        for prompt, completion in _fitting_rows(sources, tokenizer, rows, seed):
            out.write(json.dumps({"prompt": prompt, "completion": completion}) + "\n")
    return BenchmarkData(base_folder, train_file)


def matmul_parameters(labelled_share: float) -> float:
    """Parameters that multiply each token on average; the head serves labelled tokens only."""
    layers = 8 * (4 * 384 * 384 + 3 * 384 * 1024)
    return layers + labelled_share * VOCABULARY * 384


def _base_model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


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
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")


def _fitting_rows(
    sources: list[str], tokenizer: PreTrainedTokenizerFast, rows: int, seed: int
) -> Iterator[tuple[str, str]]:
    functions = [pair for text in sources for pair in _documented_functions(text)]
    random.Random(seed).shuffle(functions)
    found = 0
    for prompt, completion in functions:
        tokens = len(tokenizer(prompt + completion).input_ids) + 1  # and the end of the text
        if SHORTEST_ROW_TOKENS <= tokens <= LONGEST_ROW_TOKENS:
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
