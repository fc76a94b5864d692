"""The README of an export: a model card for the Hugging Face hub, with commands to use it.

Needs no torch.
"""

import json
from dataclasses import dataclass

from core.artifacts.manifest import Manifest
from core.catalog.exports import vllm_rank
from core.catalog.tasks import TASKS
from core.spec.base_model import BaseModelSpec
from core.spec.export import ExportOptions, ExportReplay
from core.spec.strategy import LowRankSpec


@dataclass(frozen=True)
class ExportFacts:
    """What the card of an export tells."""

    model: str
    """The id of the tuned model."""
    base: BaseModelSpec
    manifest: Manifest
    options: ExportOptions
    replay: ExportReplay
    license: str | None
    """Of the base, which holds for what is made of it."""
    notes: tuple[str, ...]


def export_card(facts: ExportFacts) -> str:
    """Return README.md: YAML front matter, then Markdown."""
    base = facts.manifest.base_model
    options = facts.options
    lines = [
        *_front_matter(facts),
        "",
        f"# {base}, tuned",
        "",
        _made_of(facts),
        "",
        *(f"- {note}" for note in facts.notes),
        *([""] if facts.notes else []),
        "## Compared with the served model",
        "",
        _compared(facts.replay),
        "",
        "## Use",
        "",
        *_usage(facts),
    ]
    if facts.license is not None:
        lines += ["", "## License", "", f"The base has the license `{facts.license}`."]
    if options.merge_into == "dequantized":
        lines[6:6] = ["The adapter was merged into the dequantized weights of its training.", ""]
    return "\n".join(lines) + "\n"


def _front_matter(facts: ExportFacts) -> list[str]:
    manifest, options = facts.manifest, facts.options
    relation = "finetune"
    if options.form == "adapter":
        relation = "adapter"
    elif options.format in ("nf4", "int8", "gguf"):
        relation = "quantized"
    library = "peft" if options.form == "adapter" else "transformers"
    if options.format in ("gguf", "adapter-gguf"):
        library = "gguf"
    license_ = [] if facts.license is None else [f"license: {json.dumps(facts.license)}"]
    return [
        "---",
        f"base_model: {json.dumps(manifest.base_model)}",
        f"base_model_relation: {relation}",
        *license_,
        f"library_name: {library}",
        f"pipeline_tag: {TASKS[manifest.task].pipeline}",
        "tags:",
        f"- {manifest.strategy.type}",
        "- tunesmith",
        "---",
    ]


_KINDS = {
    "nf4": "Its linear layers are quantized to four bits (NF4) by bitsandbytes.",
    "int8": "Its linear layers are quantized to eight bits (LLM.int8) by bitsandbytes.",
}


def _made_of(facts: ExportFacts) -> str:
    manifest, options = facts.manifest, facts.options
    revision = f" at revision `{manifest.base_revision}`" if manifest.base_revision else ""
    origin = f"`{manifest.base_model}`{revision}"
    if options.form == "adapter":
        return f"A `{manifest.strategy.type}` adapter for {origin}, exported from `{facts.model}`."
    how = (
        "every weight was trained"
        if manifest.strategy.type == "full"
        else f"a `{manifest.strategy.type}` adapter is merged into the weights"
    )
    kind = _KINDS.get(options.format)
    if options.quantization is not None:
        kind = f"Its weights are stored as {options.quantization} in llama.cpp's format."
    text = f"A complete model, made from {origin} and exported from `{facts.model}`: {how}."
    return text if kind is None else f"{text} {kind}"


def _compared(replay: ExportReplay) -> str:
    found = replay.distance
    if found is None:
        return f"Not compared: {replay.reason}"
    rows = "rows of its parity check" if found.of_parity_check else "fixed texts"
    text = (
        f"On {found.tokens:,} tokens of {found.rows} {rows}, log-probabilities differ by "
        f"{found.mean_nats:.3g} nat on average and by {found.max_nats:.3g} at most."
    )
    if found.greedy_agreement is not None:
        text += f" Both prefer the same token at {found.greedy_agreement:.1%} of them."
    if found.quantization_gap_nats is not None:
        text += (
            f" The quantized model of the training differed by {found.quantization_gap_nats:.3g} "
            "nat from the served one."
        )
    return text if replay.reason is None else f"{text}\n\n**{replay.reason}**"


def _usage(facts: ExportFacts) -> list[str]:
    match facts.options.format:
        case "vllm":
            return [*_vllm(facts), *_transformers(facts)]
        case "gguf":
            return _code("sh", ["ollama create tuned -f Modelfile", "ollama run tuned"])
        case "adapter-gguf":
            serve = "llama-server --model base.gguf --lora adapter.gguf"
            return ["The base as GGUF is needed besides.", "", *_code("sh", [serve])]
        case _:
            return _transformers(facts)


def _vllm(facts: ExportFacts) -> list[str]:
    strategy = facts.manifest.strategy
    command = ["vllm serve . --served-model-name tuned"]
    if facts.options.form == "adapter":
        assert isinstance(strategy, LowRankSpec)
        command = [
            f"vllm serve {facts.manifest.base_model} --enable-lora \\",
            f"  --max-lora-rank {vllm_rank(strategy)} --lora-modules tuned=.",
        ]
    return ["With vLLM, from this folder:", "", *_code("sh", command)]


def _transformers(facts: ExportFacts) -> list[str]:
    name = TASKS[facts.manifest.task].model_class
    if facts.options.form == "merged":
        return [
            "With transformers, from this folder:",
            "",
            *_code(
                "python",
                [
                    f"from transformers import {name}, AutoTokenizer",
                    "",
                    f'model = {name}.from_pretrained(".")',
                    'tokenizer = AutoTokenizer.from_pretrained(".")',
                ],
            ),
        ]
    return [
        "With PEFT, from this folder:",
        "",
        *_code(
            "python",
            [
                "from peft import PeftModel",
                f"from transformers import {name}, AutoTokenizer",
                "",
                f'base = {name}.from_pretrained("{facts.manifest.base_model}")',
                'model = PeftModel.from_pretrained(base, ".")',
                'tokenizer = AutoTokenizer.from_pretrained(".")',
            ],
        ),
    ]


def _code(language: str, lines: list[str]) -> list[str]:
    return [f"```{language}", *lines, "```", ""]
