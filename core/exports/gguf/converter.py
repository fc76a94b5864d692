"""Runs llama.cpp's converters, unchanged, in a process of its own.

    python -m core.exports.gguf.converter model   <llama.cpp> <settings> <model> <out> <type> <name>
    python -m core.exports.gguf.converter adapter <llama.cpp> <adapter> <base> <out>

Two things are added to the model that only Tunesmith knows. The converter recognizes the
pre-tokenizer of a BPE tokenizer by a hash of tokens, so that it knows published tokenizers only;
others are recognized by their rules (`pre_tokenizers.py`). And before the header is written, the
keys in `settings` replace those that the converter guessed from the files of the tokenizer.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

from core.exports.gguf.pre_tokenizers import pre_tokenizer
from core.exports.plain_lora import write_for_llama_cpp


def main(arguments: list[str]) -> None:
    kind, folder, *rest = arguments
    sys.path[:0] = [folder, str(Path(folder) / "gguf-py")]
    if kind == "model":
        settings, model, out, outtype, name = rest
        _recognize_pre_tokenizers()
        _replace_keys(json.loads(settings))
        options = ("--outfile", out, "--outtype", outtype, "--model-name", name)
        _run(folder, "convert_hf_to_gguf.py", model, *options)
    else:
        adapter, base, out = rest
        plain = Path(out).parent / "plain"
        write_for_llama_cpp(Path(adapter), plain)
        script, given = "convert_lora_to_gguf.py", ("--outtype", "f32", str(plain))
        _run(folder, script, "--base", base, "--outfile", out, *given)


def _run(folder: str, script: str, *arguments: str) -> None:
    sys.argv = [script, *arguments]
    runpy.run_path(str(Path(folder) / script), run_name="__main__")


def _recognize_pre_tokenizers() -> None:
    from conversion.base import TextModel  # of the folder of llama.cpp

    by_hash = TextModel.get_vocab_base_pre

    def by_hash_or_rules(self: Any, tokenizer: Any) -> str:
        try:
            known: str = by_hash(self, tokenizer)
            return known
        except NotImplementedError:
            found = pre_tokenizer(json.loads(tokenizer.backend_tokenizer.to_str()))
            if found is None:
                raise SystemExit(
                    "llama.cpp has no pre-tokenizer with the rules of this model's tokenizer."
                ) from None
            return found

    TextModel.get_vocab_base_pre = by_hash_or_rules


def _replace_keys(settings: dict[str, bool | int]) -> None:
    import gguf  # that of llama.cpp, newer than the package of this name

    writer: Any = gguf.GGUFWriter
    write_header = writer.write_header_to_file

    def with_keys(self: Any, *arguments: Any, **named: Any) -> None:
        for key, value in settings.items():
            self.remove_key(key)
            add = self.add_bool if isinstance(value, bool) else self.add_uint32
            add(key, value)
        write_header(self, *arguments, **named)

    writer.write_header_to_file = with_keys


if __name__ == "__main__":
    main(sys.argv[1:])
