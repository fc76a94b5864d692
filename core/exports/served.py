"""Scores rows with a tuned model as it is served: its adapter on its base, not merged."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.artifacts.manifest import Manifest, read_manifest
from core.batching.rows import LabelledRow, Row, SourceTargetRow
from core.catalog.families import family_of
from core.catalog.strategies import STRATEGIES
from core.engine.device.adapter_loading import fit_head, load_on
from core.evaluation.figures import figures_of
from core.evaluation.rounding import perturbed_rounding
from core.exports.memory import require_memory
from core.exports.rows import rows_of
from core.exports.scoring import score
from core.exports.sources import labels_of, model_source, stored_dtype
from core.models.attention import use_packed_attention
from core.models.load import load_base, load_tokenizer
from core.models.precision import dtype_of, name_of
from core.parity.distance import mean_distance
from core.spec.base_model import BaseModelSpec
from core.spec.export_steps import RowFigures, ScoredRow, ServedFigures, ServeStep
from core.spec.objective import ClassificationSpec, Task

CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Scoring:
    """Rows, and how models score them."""

    rows: tuple[ScoredRow, ...]
    task: Task
    multi_label: bool

    def of(self, model: PreTrainedModel) -> tuple[RowFigures, ...]:
        return score(model, self.rows, self.task, multi_label=self.multi_label)


def serve(step: ServeStep) -> ServedFigures:
    """Return the rows with the figures of the served model and of its base."""
    manifest = read_manifest(step.bundle)
    multi_label = _is_multi_label(manifest)
    tokenizer = load_tokenizer(BaseModelSpec(id="bundle", source=str(step.bundle)))
    rows = rows_of(step.reference, tokenizer, manifest.task)
    model = _load(step, manifest)
    scoring = _Scoring(rows, manifest.task, multi_label)
    base: tuple[RowFigures, ...] | None = None
    virtual: tuple[RowFigures, ...] | None = None
    if not STRATEGIES[manifest.strategy.type].full_model:
        adapted = load_on(model, "bundle", step.bundle, fit_head)
        if manifest.task != "classification":  # the head of a base has other labels, or none
            base = scoring.of(model)
        if adapted.virtual is None:
            adapted.install()
        else:
            virtual = _with_virtual_tokens(adapted, scoring)
    served = scoring.of(model) if virtual is None else virtual
    rounded = _rounded(model, step, manifest, scoring) if virtual is None else virtual
    return ServedFigures(
        task=manifest.task,
        multi_label=multi_label,
        precision=name_of(model.dtype),
        quantization=model_source(step.base, step.bundle, manifest).quantization,
        rounding_nats=_distance(served, rounded),
        of_parity_check=bool(step.reference is not None and step.reference.rows),
        rows=rows,
        served=served,
        base=base,
    )


def _load(step: ServeStep, manifest: Manifest) -> PreTrainedModel:
    source = model_source(step.base, step.bundle, manifest)
    dtype = dtype_of(manifest.precision) if manifest.precision else stored_dtype(source)
    labels = labels_of(manifest)
    require_memory(source, dtype, manifest.task, labels, "to score rows with the served model")
    return load_base(source, dtype, CPU, task=manifest.task, labels=labels)


def _with_virtual_tokens(adapted: AdaptedModel, scoring: _Scoring) -> tuple[RowFigures, ...]:
    """Run the model as in training, which does not say which tokens it prefers."""
    if family_of(adapted.model.config.model_type).layout == "packed":
        use_packed_attention(adapted.model)
    adapted.install()
    judged = [_judged(row, scoring.task) for row in scoring.rows]
    budget = max(row.length for row in judged)
    figures = figures_of(adapted, judged, budget, multi_label=scoring.multi_label)
    return tuple(RowFigures(logprobs=tuple(each)) for each in figures)


def _rounded(
    model: PreTrainedModel, step: ServeStep, manifest: Manifest, scoring: _Scoring
) -> tuple[RowFigures, ...]:
    """Score the rows with random rounding of the size of the export's number format."""
    written = _written_in(step, manifest, model.dtype)
    coarser = max(model.dtype, written, key=lambda dtype: torch.finfo(dtype).eps)
    with perturbed_rounding(model, seed=0, coarser=coarser):
        return scoring.of(model)


def _written_in(step: ServeStep, manifest: Manifest, served: torch.dtype) -> torch.dtype:
    """Return the format of the weights before any quantization."""
    options = step.options
    if options.form == "adapter":
        return served
    if options.precision is not None:
        return dtype_of(options.precision)
    source = model_source(step.base, step.bundle, manifest)
    stored = stored_dtype(source)
    return torch.float16 if options.format == "gguf" and stored == torch.float32 else stored


def _distance(one: tuple[RowFigures, ...], other: tuple[RowFigures, ...]) -> float:
    return mean_distance(
        [each for row in one for each in row.logprobs],
        [each for row in other for each in row.logprobs],
    )


def _judged(row: ScoredRow, task: Task) -> Row | SourceTargetRow | LabelledRow:
    match task:
        case "classification":
            return LabelledRow(0, row.tokens, ())
        case "seq2seq":
            return SourceTargetRow(0, row.tokens, row.target)
        case _:
            return Row(0, row.tokens, row.scored)


def _is_multi_label(manifest: Manifest) -> bool:
    objective = manifest.objective
    return isinstance(objective, ClassificationSpec) and objective.multi_label
