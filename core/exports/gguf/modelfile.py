"""The Modelfile with which Ollama serves an export: files, template, parameters."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from core.batching.template import ChatTemplate
from core.exports.gguf.conversation_end import ends_of, first_token
from core.exports.gguf.go_template import go_template
from core.exports.gguf.measure import NotMeasurable, Renderer, measure
from core.exports.gguf.omissions import omissions

_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
"""Ollama's name of each field of `generation_config.json`."""

_NO_TEMPLATE = "The model has no chat template; it continues the text that it is given."
_OTHER_TEMPLATE = (
    "The chat template cannot be written as a template of Ollama. The GGUF file contains it: use "
    "llama-server with --jinja."
)
_NO_ADAPTERS = (
    "Ollama 0.34.1 and later refuse ADAPTER in a Modelfile. There, export a merged GGUF, or use "
    "llama-server with -m and --lora."
)


@dataclass(frozen=True)
class Modelfile:
    """The text of the file, and what it cannot say, which is also in its comments."""

    text: str
    omissions: tuple[str, ...]


def modelfile(folder: Path, model: str, adapter: str | None = None) -> Modelfile:
    """Return the Modelfile for GGUF files of these names, which lie beside it.

    `folder` has the tokenizer that the model is served with, and its `generation_config.json`.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    template, missing = _template(tokenizer)
    if adapter:
        missing = (_NO_ADAPTERS, *missing)
    lines = [
        "# Written by Tunesmith: `ollama create <name> -f Modelfile` in this folder.",
        *(f"# {sentence}" for sentence in missing),
        f"FROM ./{model}",
        *([f"ADAPTER ./{adapter}"] if adapter else []),
        *([f'TEMPLATE """{template}"""'] if template else []),
        *(f"PARAMETER {name} {value}" for name, value in _parameters(folder).items()),
        *(f'PARAMETER stop "{end}"' for end in _stops(tokenizer)),
    ]
    return Modelfile("\n".join(lines) + "\n", missing)


def _template(tokenizer: Any) -> tuple[str, tuple[str, ...]]:
    if not tokenizer.chat_template:
        return "{{ .Prompt }}", (_NO_TEMPLATE,)
    template = ChatTemplate(tokenizer)
    renderer = Renderer(template, first_token(template))
    try:
        shape = measure(renderer)
    except NotMeasurable:
        return "", (_OTHER_TEMPLATE,)
    return go_template(shape), omissions(renderer, shape)


def _parameters(folder: Path) -> dict[str, float]:
    try:
        config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    given = {name: config.get(key) for key, name in _PARAMETERS.items()}
    return {name: value for name, value in given.items() if isinstance(value, int | float)}


def _stops(tokenizer: Any) -> list[str]:
    tokens: list[str] = tokenizer.convert_ids_to_tokens(list(ends_of(tokenizer).tokens))
    return [token for token in tokens if '"' not in token]
