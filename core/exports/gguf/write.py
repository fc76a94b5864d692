"""Writes GGUF files of models and of adapters with llama.cpp's own converters."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from core.errors import InvalidRequest
from core.exports.gguf.conversation_end import ends_of
from core.exports.gguf.llama_cpp import LlamaCpp
from core.exports.gguf.support import require_adapter, require_family
from core.exports.gguf.tokens import token_notes
from core.spec.adapter_file import CONFIG_FILE
from core.spec.export import GgufQuantization

_PIECES = "tokenizer.model"


def write_model(
    llama_cpp: LlamaCpp,
    model_folder: Path,
    base_folder: Path,
    out: Path,
    quantization: GgufQuantization = "f16",
) -> tuple[str, ...]:
    """Write a model in transformers' layout as one GGUF file, complete or not at all.

    Returns what a user should know, such as texts that llama.cpp cuts into other tokens.
    `base_folder` is where the tokenizer's `tokenizer.model` is, if it has one. Raises
    InvalidRequest for what GGUF cannot hold, ConversionFailed if llama.cpp fails.
    """
    require_family(_read(model_folder / "config.json"))
    tokenizer = _tokenizer(model_folder)
    with _unfinished(out) as folder:
        source = _with_pieces(model_folder, base_folder, folder / "model")
        file = folder / "model.gguf"
        outtype = "auto" if quantization == "q4_k_m" else quantization
        keys = json.dumps(ends_of(tokenizer).keys())
        paths = (str(llama_cpp.folder), keys, str(source), str(file), outtype, _name(tokenizer))
        llama_cpp.run("converter", ("model", *paths))
        if quantization == "q4_k_m":
            exact, file = file, folder / "quantized.gguf"
            llama_cpp.run("quantizer", (str(exact), str(file), str(llama_cpp.threads)))
        notes = token_notes(llama_cpp, file, tokenizer)
        file.replace(out)
    return notes


def write_adapter(llama_cpp: LlamaCpp, adapter_folder: Path, base_folder: Path, out: Path) -> None:
    """Write a LoRA adapter in PEFT's layout as a GGUF file, complete or not at all.

    Its matrices are in fp32. It belongs to a GGUF file of the same base, in any quantization.
    Raises InvalidRequest for adapters that GGUF cannot hold, ConversionFailed if llama.cpp fails.
    """
    require_family(_read(base_folder / "config.json"))
    require_adapter(_read(adapter_folder / CONFIG_FILE))
    with _unfinished(out) as folder:
        file = folder / "adapter.gguf"
        paths = (str(llama_cpp.folder), str(adapter_folder), str(base_folder), str(file))
        llama_cpp.run("converter", ("adapter", *paths))
        file.replace(out)


@contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    """Give a folder beside `out`, on the same disk, that is removed in any case."""
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        yield Path(folder)


def _with_pieces(model: Path, base: Path, out: Path) -> Path:
    """Return a folder with the model and the pieces of its SentencePiece tokenizer.

    `tokenizer.json` lacks the scores of the pieces, without which llama.cpp cuts otherwise.
    """
    if not _has_pieces(model) or (model / _PIECES).is_file():
        return model
    if not (base / _PIECES).is_file():
        raise InvalidRequest(
            f"The base has no {_PIECES}, whose scores llama.cpp needs to cut a text into tokens. "
            "Copy the file of the published model into the folder of the base.",
            code="gguf_unsupported",
        )
    out.mkdir()
    for path in model.iterdir():
        (out / path.name).symlink_to(path.resolve())
    shutil.copyfile(base / _PIECES, out / _PIECES)
    return out


def _name(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the name of the model in the file.

    llama.cpp skips white space after special tokens, as the tokenizers of Phi-3 do, if the name
    contains "phi-3"; it then needs the special tokens of Phi-3.
    """
    special = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
    skips = [token.content for token in special if token.rstrip]
    known = {"<s>", "</s>", "<unk>", "<|endoftext|>"} <= tokenizer.get_vocab().keys()
    return "phi-3 tuned" if skips and known else "tuned"


def _has_pieces(folder: Path) -> bool:
    """Whether the tokenizer comes from SentencePiece: unknown letters become bytes."""
    return bool(_read(folder / "tokenizer.json")["model"].get("byte_fallback"))


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    found: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return found


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
