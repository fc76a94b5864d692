"""The model card: what was trained on what, how it went, and how to use it."""

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
            f"A {facts.spec.strategy.type.upper()} adapter trained with Tunesmith. It works on the "
            f"base model `{base}`{_revision(facts.base)} only.",
            "",
            "## Data",
            "",
            *_table(("", "Rows", "Tokens", "Labelled tokens"), _data_rows(facts.dataset)),
            "",
            "Tokens are those of one epoch, without padding. The loss is taken on the labelled ones.",
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
            *_usage(base, facts.base.revision),
        ]
    )


def _front_matter(base: str, facts: CardFacts) -> list[str]:
    return [
        "---",
        f'base_model: "{base}"',
        "library_name: peft",
        "pipeline_tag: text-generation",
        "tags:",
        f'- "base_model:adapter:{base}"',
        f"- {facts.spec.strategy.type}",
        "- tunesmith",
        "---",
    ]


def _revision(base: BaseModelSpec) -> str:
    return f" at revision `{base.revision}`" if base.revision else ""


def _data_rows(dataset: DatasetValidated) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        ("Training", f"{dataset.rows:,}", f"{dataset.tokens:,}", f"{dataset.labelled_tokens:,}")
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


def _usage(base: str, revision: str | None) -> list[str]:
    pin = f', revision="{revision}"' if revision else ""
    return [
        "From this folder, with PEFT:",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{base}"{pin})',
        'model = PeftModel.from_pretrained(base, "path/to/this/folder")',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
        "```",
        "",
        "From the service that trained it, with the OpenAI client (`base_url` and the name of the "
        "tuned model",
        "are those of your service and job):",
        "",
        "```python",
        "from openai import OpenAI",
        "",
        'client = OpenAI(base_url="http://localhost:8000/v1", api_key="…")',
        "answer = client.chat.completions.create(",
        '    model="ft:…", messages=[{"role": "user", "content": "Hello"}]',
        ")",
        "```",
        "",
    ]


def _table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    lines = [header, tuple("---" for _ in header), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def _text(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
