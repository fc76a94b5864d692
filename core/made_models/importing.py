"""From a checked adapter of PEFT to what our strategy needs, before the base's weights are read."""

from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from core.adapter_files.refusal import RefusedAdapter, shown
from core.adapters.adapted import AdaptedModel
from core.adapters.modules_to_save import classifier_head
from core.artifacts.manifest import public_name
from core.catalog.combinations import require_combination
from core.catalog.families import family_of
from core.made_models.expressed import Expressed, Fold, grouped
from core.made_models.ia3 import express_ia3
from core.made_models.lora import express_lora, refuse_biases
from core.made_models.names import Named, named_tensors
from core.made_models.reading import require_complete
from core.made_models.virtual import express_virtual
from core.models.load import load_config, load_tokenizer, outline
from core.spec.adapter_file import AdapterParts, Method, PeftTask
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.making import ImportSource, LabelSpec
from core.spec.objective import ClassificationSpec, ObjectiveSpec, SupervisedSpec, Task
from core.strategies.attach import attach
from core.training.preflight import require_fit

TASKS_OF_PEFT: dict[PeftTask, Task] = {
    "CAUSAL_LM": "generation",
    "SEQ_CLS": "classification",
    "SEQ_2_SEQ_LM": "seq2seq",
}
STRATEGIES_OF_PEFT: dict[Method, str] = {
    "LORA": "lora",
    "IA3": "ia3",
    "PREFIX_TUNING": "prefix",
    "PROMPT_TUNING": "prompt",
    "P_TUNING": "prompt",
}
PEFT_TASKS = {task: name for name, task in TASKS_OF_PEFT.items()}


@dataclass(frozen=True)
class Planned:
    """An import that fits its base: the model as a job would make it, and its weights."""

    spec: JobSpec
    expressed: Expressed
    warnings: tuple[str, ...]


def plan_import(base: BaseModelSpec, source: ImportSource) -> Planned:
    """Return the import of an adapter for a base; RefusedAdapter if it does not fit.

    Only the base's config and tokenizer are read.
    """
    config, parts = load_config(base), source.parts
    task = _task(parts, config)
    refuse_biases(parts.config.fields, parts.tensors)
    objective = _objective(parts, task, source.labels, config.model_type)
    strategy = STRATEGIES_OF_PEFT[parts.config.method]
    require_combination(config.model_type, task, objective.type, strategy)
    labels = len(objective.labels) if isinstance(objective, ClassificationSpec) else None
    model = outline(base, config, task, labels)
    named, warnings = named_tensors(parts.tensors, dict(model.named_modules()))
    expressed = _expressed(parts, named, model)
    spec = JobSpec(base=base, task=task, objective=objective, strategy=expressed.strategy, seed=0)
    tokenizer = load_tokenizer(base)
    require_fit(spec, config, tokenizer)
    adapted = attach(model, spec.strategy, tokenizer, prepack=False)
    expressed = _with_head_of_base(expressed, adapted)
    shapes = _shapes(expressed, named, {n: tuple(p.shape) for n, p in adapted.trainable.items()})
    require_complete(adapted, shapes)
    template = tokenizer.chat_template
    notes = (*warnings, *_notes(parts, base, template))
    return Planned(spec, expressed, notes)


def _task(parts: AdapterParts, config: PreTrainedConfig) -> Task:
    """Return the task of the adapter; without one, that of its tensors and its base."""
    if parts.config.task_type is not None:
        return TASKS_OF_PEFT[parts.config.task_type]
    head = family_of(config.model_type).head
    if any(set(head) & set(each.name.split(".")) for each in parts.tensors):
        return "classification"
    tasks = [task for task in family_of(config.model_type).tasks if task != "classification"]
    if not tasks:
        raise RefusedAdapter(
            "adapter_config.json has no task_type, and the adapter has no head of a classifier."
        )
    return tasks[0]


def _objective(parts: AdapterParts, task: Task, given: LabelSpec, model_type: str) -> ObjectiveSpec:
    """Return the objective. The number of labels is that of the rows of the last head."""
    if task != "classification":
        if given.names:
            raise RefusedAdapter("Only an adapter of a classifier (SEQ_CLS) has labels.")
        return SupervisedSpec()
    head = family_of(model_type).head[-1:]
    rows = [
        each.shape[0]
        for each in parts.tensors
        if len(each.shape) == 2
        and each.name.endswith("weight")
        and set(head) & set(each.name.split("."))
    ]
    if len(rows) != 1 or rows[0] < 2:
        raise RefusedAdapter(
            "The adapter of a classifier has no head with two labels or more. Save it with "
            f"modules_to_save={list(head)}."
        )
    count = rows[0]
    names = given.names or parts.labels or tuple(f"LABEL_{index}" for index in range(count))
    if len(names) != count or len(set(names)) != count:
        raise RefusedAdapter(
            f"The head has {count} labels, but {len(set(names))} names are given. Send `labels` "
            "in the order of the head's rows."
        )
    return ClassificationSpec(labels=names, multi_label=given.multi_label)


def _expressed(parts: AdapterParts, named: tuple[Named, ...], model: PreTrainedModel) -> Expressed:
    groups, fields = grouped(named), parts.config.fields
    match parts.config.method:
        case "LORA":
            return express_lora(fields, groups, model)
        case "IA3":
            return express_ia3(fields, groups, model)
        case method:
            return express_virtual(method, fields, groups, model)


def _with_head_of_base(expressed: Expressed, adapted: AdaptedModel) -> Expressed:
    """Take from the base what our classifiers train and PEFT's do not, such as a pooler."""
    *inner, _ = classifier_head(adapted.model) or ("",)
    missing = adapted.trainable.keys() - expressed.kept.keys() - expressed.folds.keys()
    own = {name: (Fold(()),) for name in sorted(missing) if set(inner) & set(name.split("."))}
    return replace(expressed, folds={**expressed.folds, **own})


def _shapes(
    expressed: Expressed, named: tuple[Named, ...], needed: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of our weights, by name. A folded one has the shape of the base's."""
    by_name = {each.tensor.name: each.shape for each in named}
    shapes = {ours: by_name[theirs] for ours, theirs in expressed.kept.items()}
    if expressed.first_rows is not None:
        shapes["prompt_embeddings"] = (expressed.first_rows, *shapes["prompt_embeddings"][1:])
    return shapes | {name: needed[name] for name in expressed.folds if name in needed}


def _notes(parts: AdapterParts, base: BaseModelSpec, template: str | None) -> list[str]:
    """Return what the owner should know, although the adapter fits."""
    notes = []
    named = parts.config.base_model_name
    if named and named.rstrip("/").rpartition("/")[2] not in (
        public_name(base).rpartition("/")[2],
        base.id.rpartition("/")[2],
    ):
        notes.append(f"The adapter names {shown(named)} as its base, not {base.id}.")
    if parts.chat_template and parts.chat_template.strip() != (template or "").strip():
        notes.append(
            "The adapter has another chat template than the base. Templates are code, so the "
            "model uses that of the base; if it was trained with the other, its answers suffer."
        )
    return notes


def is_without_effect(weights: dict[str, torch.Tensor]) -> bool:
    """Return whether every B of a LoRA is zero, as before training, and nothing else is trained."""
    others = [name for name in weights if not name.endswith(("lora_A.weight", "lora_B.weight"))]
    updates = [each for name, each in weights.items() if name.endswith("lora_B.weight")]
    return not others and bool(updates) and not any(each.any() for each in updates)
