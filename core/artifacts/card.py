"""The model card: base, data, hyperparameters, metrics and usage."""

import json
from dataclasses import dataclass

from core.artifacts.manifest import public_name
from core.artifacts.metrics import StepMetrics
from core.artifacts.usage import usage
from core.catalog.objectives import OBJECTIVES, Target
from core.catalog.strategies import STRATEGIES
from core.catalog.tasks import TASKS
from core.spec.base_model import BaseModelSpec
from core.spec.events import DatasetValidated, ModelReady
from core.spec.held_out import Figures, perplexity
from core.spec.job import JobSpec
from core.spec.members import for_each
from core.spec.tuned import TunedSpec


@dataclass(frozen=True)
class CardFacts:
    """What a model card tells of a run."""

    spec: JobSpec
    dataset: DatasetValidated
    model: ModelReady
    base: Figures | None = None
    """Of the model with which the run began, on the held-out rows."""


def model_card(facts: CardFacts, curve: tuple[StepMetrics, ...], step: int) -> str:
    """Return README.md for the Hugging Face Hub: YAML front matter, then Markdown.

    The weights of the bundle are those after `step`.
    """
    base = public_name(facts.spec.base)
    return "\n".join(
        [
            *front_matter(base, TunedSpec.of(facts.spec)),
            "",
            *_introduction(base, facts),
            "",
            "## Data",
            "",
            *_table(("", "Rows", "Tokens", "Targets"), _data_rows(facts.dataset)),
            "",
            "Tokens are counted for one epoch, without padding. "
            + _TARGETS[OBJECTIVES[facts.spec.objective.type].target],
            "",
            "## Hyperparameters",
            "",
            *_table(("Name", "Value"), _hyperparameter_rows(facts)),
            "",
            "## Metrics",
            "",
            *_table(("Step", "Training loss", "Validation loss"), _metric_rows(curve)),
            "",
            f"Losses are nats per target. The weights are those after step {step:,}. Every step "
            "is in `metrics.csv`; `row_losses.csv` has the loss of each line of the training file "
            "in each epoch.",
            "",
            "![Loss by step](loss.png)",
            "",
            *_evaluation(facts, curve, step),
            "## Use",
            "",
            *usage(TunedSpec.of(facts.spec)),
        ]
    )


def _evaluation(facts: CardFacts, curve: tuple[StepMetrics, ...], step: int) -> list[str]:
    """Return the section about the held-out rows; none if they were not evaluated at `step`."""
    found = next((each for each in curve if each.step == step), None)
    if found is None or found.valid_loss is None or found.valid_mean_token_accuracy is None:
        return []
    tuned = Figures(loss=found.valid_loss, accuracy=found.valid_mean_token_accuracy)
    columns = {"Tuned": tuned} if facts.base is None else {"Base": facts.base, "Tuned": tuned}
    if facts.spec.parent is not None and facts.base is not None:
        columns = {"Before": facts.base, "Tuned": tuned}
    figures = list(columns.values())
    rows: list[tuple[object, ...]] = [("Loss", *(_loss(each.loss) for each in figures))]
    if OBJECTIVES[facts.spec.objective.type].target == "tokens":
        shown = (f"{perplexity(each.loss):.4g}" for each in figures)
        rows.append(("Perplexity", *shown))
    rows.append(("Accuracy", *(f"{each.accuracy:.4f}" for each in figures)))
    return [
        "## Evaluation",
        "",
        *_table(("Held-out rows", *columns), rows),
        "",
        f"Means over the targets of {facts.dataset.validation_rows:,} held-out rows. Accuracy is "
        "the share of correct targets.",
        "",
    ]


_TARGETS = for_each(
    Target,
    {
        "tokens": "Targets are the labelled tokens, on which the loss is computed.",
        "rows": "Targets are the texts, each with its labels.",
        "pairs": "Targets are the pairs of answers.",
        "answers": "Targets are the answers, each of them rated.",
    },
)


def front_matter(base: str, spec: TunedSpec) -> list[str]:
    """Return the YAML by which the Hugging Face Hub files a model."""
    strategy = spec.strategy.type
    relation = "finetune" if STRATEGIES[strategy].full_model else "adapter"
    return [
        "---",
        f"base_model: {json.dumps(base)}",
        f"library_name: {STRATEGIES[strategy].library}",
        f"pipeline_tag: {TASKS[spec.task].pipeline}",
        "tags:",
        f"- {json.dumps(f'base_model:{relation}:{base}')}",
        f"- {strategy}",
        "- tunesmith",
        "---",
    ]


def _introduction(base: str, facts: CardFacts) -> list[str]:
    origin = f"`{base}`{_revision(facts.spec.base)}"
    if STRATEGIES[facts.spec.strategy.type].full_model:
        return [
            f"# {base}, tuned",
            "",
            f"A fully fine-tuned model, trained with Tunesmith from {origin}.",
        ]
    return [
        f"# Adapter for {base}",
        "",
        f"A `{facts.spec.strategy.type}` adapter trained with Tunesmith. It works only with the "
        f"base model {origin}.",
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
    """Return all settings by the names of the specs, and the resolved `auto` values."""
    settings: dict[str, object] = {
        "task": facts.spec.task,
        "objective": facts.spec.objective.type,
        **{f"objective.{name}": value for name, value in facts.spec.objective if name != "type"},
        **{f"strategy.{name}": value for name, value in facts.spec.strategy},
        **{f"training.{name}": value for name, value in facts.spec.training},
        **{
            f"evaluation.{name}": value
            for name, value in facts.spec.evaluation
            if name not in _NOT_SHOWN
        },
        "seed": facts.spec.seed,
        "optimizer steps": f"{facts.dataset.total_steps:,}",
        "trainable parameters": f"{facts.model.trainable_parameters:,} of "
        f"{facts.model.total_parameters:,}",
        "precision used": facts.model.precision,
        "device": facts.model.device,
    }
    return [(name, _text(value)) for name, value in settings.items()]


_NOT_SHOWN = ("graders", "prompts", "require")
"""Settings of the evaluation with texts of the owner, who may pass the bundle on."""


def _metric_rows(curve: tuple[StepMetrics, ...]) -> list[tuple[object, ...]]:
    """Return the first step, the last step and every evaluation."""
    return [
        (entry.step, _loss(entry.train_loss), _loss(entry.valid_loss))
        for entry in curve
        if entry in (curve[0], curve[-1]) or entry.valid_loss is not None
    ]


def _table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    lines = [header, tuple("---" for _ in header), *rows]
    escaped = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return ["| " + " | ".join(line) + " |" for line in escaped]


_SHOWN = 50
"""The most labels or modules that the card lists."""


def _text(value: object) -> str:
    if not isinstance(value, tuple):
        return str(value)
    shown = ", ".join(value[:_SHOWN])
    return shown if len(value) <= _SHOWN else f"{shown} and {len(value) - _SHOWN} more"


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
