"""The model card: what was trained on what, how it went, and how to use it."""

import json
from dataclasses import dataclass

from core.artifacts.manifest import public_name
from core.artifacts.metrics import StepMetrics
from core.spec.events import DatasetValidated, ModelReady
from core.spec.run import BaseModelSpec, JobSpec


@dataclass(frozen=True)
class CardFacts:
    base: BaseModelSpec
    spec: JobSpec
    dataset: DatasetValidated
    model: ModelReady


def model_card(facts: CardFacts, curve: tuple[StepMetrics, ...]) -> str:
    """README.md in the form that the Hugging Face Hub reads: YAML front matter, then Markdown."""
    base = public_name(facts.base)
    return "\n".join(
        [
            *_front_matter(base, facts),
            "",
            f"# Adapter for {base}",
            "",
            f"A `{facts.spec.strategy.type}` adapter trained with Tunesmith. It works on the "
            f"base model `{base}`{_revision(facts.base)} only.",
            "",
            "## Data",
            "",
            *_table(("", "Rows", "Tokens", "Labelled tokens"), _data_rows(facts.dataset)),
            "",
            "Tokens are those of one epoch, padding not counted. Labelled tokens carry the loss.",
            "",
            "## Hyperparameters",
            "",
            *_table(("Name", "Value"), _hyperparameter_rows(facts)),
            "",
            "## Metrics",
            "",
            *_table(("Step", "Training loss", "Validation loss"), _metric_rows(curve)),
            "",
            "Losses are nats per labelled token. Every step is in `metrics.csv`.",
            "",
            "![Loss by step](loss.png)",
            "",
            "## Use",
            "",
            *_usage(facts.base),
        ]
    )


def _front_matter(base: str, facts: CardFacts) -> list[str]:
    return [
        "---",
        f"base_model: {json.dumps(base)}",
        "library_name: peft",
        "pipeline_tag: text-generation",
        "tags:",
        f"- {json.dumps(f'base_model:adapter:{base}')}",
        f"- {facts.spec.strategy.type}",
        "- tunesmith",
        "---",
    ]


def _revision(base: BaseModelSpec) -> str:
    return f" at revision `{base.revision}`" if base.revision else ""


def _data_rows(dataset: DatasetValidated) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        ("Training", f"{dataset.rows:,}", f"{dataset.tokens:,}", f"{dataset.targets:,}")
    ]
    if dataset.validation_rows:
        rows.append(("Validation", f"{dataset.validation_rows:,}", "", ""))
    return rows


def _hyperparameter_rows(facts: CardFacts) -> list[tuple[object, ...]]:
    """Everything in the specs, under the specs' own names, and what became of `auto`."""
    settings: dict[str, object] = {
        "objective": facts.spec.objective,
        **{f"strategy.{name}": value for name, value in facts.spec.strategy},
        **{f"training.{name}": value for name, value in facts.spec.training},
        "seed": facts.spec.seed,
        "optimiser steps": f"{facts.dataset.total_steps:,}",
        "trainable parameters": f"{facts.model.trainable_parameters:,} of "
        f"{facts.model.total_parameters:,}",
        "precision used": facts.model.precision,
        "device": facts.model.device,
    }
    return [(name, _text(value)) for name, value in settings.items()]


def _metric_rows(curve: tuple[StepMetrics, ...]) -> list[tuple[object, ...]]:
    """The first step, the last one and every evaluation."""
    return [
        (entry.step, _loss(entry.train_loss), _loss(entry.valid_loss))
        for entry in curve
        if entry in (curve[0], curve[-1]) or entry.valid_loss is not None
    ]


def _usage(base: BaseModelSpec) -> list[str]:
    name = public_name(base)
    pin = f', revision="{base.revision}"' if base.revision else ""
    return [
        "With PEFT, from this folder:"
        if name == base.source
        else f"With PEFT, from this folder; `{name}` stands for a local folder of that model:",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{name}"{pin})',
        'model = PeftModel.from_pretrained(base, ".")',
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        "```",
        "",
        "With the OpenAI client, from the service that trained it:",
        "",
        "```python",
        "from openai import OpenAI",
        "",
        'client = OpenAI(base_url="http://localhost:8000/v1", api_key="…")',
        "answer = client.chat.completions.create(",
        '    model="ft:…",  # the job\'s `fine_tuned_model`',
        '    messages=[{"role": "user", "content": "Hello"}],',
        ")",
        "```",
        "",
    ]


def _table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    lines = [header, tuple("---" for _ in header), *rows]
    escaped = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return ["| " + " | ".join(line) + " |" for line in escaped]


def _text(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
