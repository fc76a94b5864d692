"""What training says of a few rows with the weights of the bundle, for others to compare with.

The worker asks the engine for the same rows before the model is published
(docs/decisions/0012-parity-before-publication.md).
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import torch
from transformers import PreTrainedTokenizerBase

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import OutOfMemory, is_out_of_memory
from core.batching.rows import LabelledRow, Row, SourceTargetRow
from core.catalog.describe import is_quantised
from core.catalog.families import family_of
from core.errors import TrainingFailed
from core.evaluation.figures import figures_of
from core.models.attention import use_packed_attention
from core.models.load import load_base, load_config, outline
from core.models.precision import name_of
from core.spec.generation import TextPrompt
from core.spec.objective import ClassificationSpec
from core.spec.parity import Ablation, ParityReference, ReplayedRow, ReplayedText
from core.spec.run import JobSpec
from core.spec.strategy import QloraSpec
from core.strategies.load import load_adapter
from core.training.activations import USABLE_SHARE, free_bytes
from core.training.replayed import Replay


@dataclass(frozen=True)
class Trained:
    """A model at the end of its run, and its bundle, from which the engine will load it."""

    spec: JobSpec
    adapted: AdaptedModel
    dtype: torch.dtype
    tokenizer: PreTrainedTokenizerBase
    bundle: Path
    budget_tokens: int

    @property
    def labels(self) -> tuple[str, ...]:
        objective = self.spec.objective
        return objective.labels if isinstance(objective, ClassificationSpec) else ()

    def figures(self, adapted: AdaptedModel, replays: Sequence[Replay]) -> list[list[float]]:
        """Return what `adapted`, in place of the trained model, says of the rows, in nats."""
        objective = self.spec.objective
        multi_label = isinstance(objective, ClassificationSpec) and objective.multi_label
        rows = [replay.row for replay in replays]
        return figures_of(adapted, rows, self.budget_tokens, multi_label=multi_label)


def parity_reference(trained: Trained, replays: Sequence[Replay]) -> ParityReference:
    """Return what training says of `replays`, or why it can say nothing.

    Of qlora it is the trained adapter on the base as it is served, since the quantised one that
    was trained on is another model (docs/decisions/0008-qlora-served-on-the-plain-base.md).
    """
    precision = name_of(trained.dtype)
    if not replays:
        return ParityReference(
            precision=precision, missing="every text was cut to the length limit"
        )
    adapted, gap = trained.adapted, None
    try:
        figures = trained.figures(adapted, replays)
        if _was_quantised_to_train(trained.spec):
            adapted, quantised = _on_the_served_base(trained), figures
            figures = trained.figures(adapted, replays)
            gap = _mean_distance(quantised, figures)
        ablations = list(_ablations(trained, adapted, replays[:1]))
    except (OutOfMemory, TrainingFailed) as shortage:
        return ParityReference(precision=precision, missing=f"memory is too short: {shortage}")
    if not all(map(_is_finite, figures)):
        raise TrainingFailed(
            "The trained model gives log-probabilities that are no longer finite. Lower the "
            "learning rate or lengthen the warmup.",
            code="loss_nonfinite",
        )
    return ParityReference(
        precision=precision,
        rows=_described(trained, replays, figures),
        ablations=tuple(each for each in ablations if _is_finite(each.figures)),
        quantisation_gap_nats=gap,
    )


def _was_quantised_to_train(spec: JobSpec) -> bool:
    stored_quantised = is_quantised(load_config(spec.base).to_dict())
    return isinstance(spec.strategy, QloraSpec) and not stored_quantised


def _on_the_served_base(trained: Trained) -> AdaptedModel:
    """Return the adapter of the bundle on its base, not quantised; TrainingFailed without room.

    On a CPU an allocation too many kills the process, so the room is looked for before.
    """
    spec, device = trained.spec, trained.adapted.model.device
    labels = len(trained.labels) or None
    weights = outline(spec.base, load_config(spec.base), spec.task, labels).num_parameters()
    needed, free = weights * trained.dtype.itemsize, free_bytes(device)
    shortage = TrainingFailed(
        f"the base that serves the model takes {needed / 2**30:.1f} GiB beside the quantised one"
    )
    if free is not None and needed > USABLE_SHARE * free:
        raise shortage
    try:
        model = load_base(spec.base, trained.dtype, device, task=spec.task, labels=labels)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise shortage from error
        raise
    if family_of(model.config.model_type).layout == "packed":
        use_packed_attention(model)
    adapted = load_adapter(model, trained.bundle, trained.tokenizer)
    adapted.install()
    return adapted


def _is_finite(figures: Sequence[float]) -> bool:
    return all(map(math.isfinite, figures))


def _mean_distance(one: list[list[float]], other: list[list[float]]) -> float:
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


def _ablations(
    trained: Trained, adapted: AdaptedModel, first: Sequence[Replay]
) -> Iterator[Ablation]:
    """Yield the first row without the modules of each name, then without the whole adapter."""
    if adapted.config is None:
        return  # the whole model was trained: there is nothing to go back to

    def run(name: str, count: int, ablated: AbstractContextManager[None]) -> Ablation:
        with ablated:
            (figures,) = trained.figures(adapted, first)
        return Ablation(modules=name, count=count, figures=tuple(figures))

    by_name: dict[str, list[str]] = defaultdict(list)
    for path in adapted.replaced:
        name = next(part for part in reversed(path.split(".")) if not part.isdigit())
        by_name[name].append(path)
    for name, paths in by_name.items():
        yield run(name, len(paths), adapted.without(paths))
    if len(by_name) != 1:
        yield run("the whole adapter", 1, adapted.off())


def _described(
    trained: Trained, replays: Sequence[Replay], figures: Sequence[Sequence[float]]
) -> tuple[ReplayedRow, ...] | tuple[ReplayedText, ...]:
    rows = list(zip(replays, figures, strict=True))
    if trained.spec.task == "classification":
        return tuple(_text(replay, trained.labels, each) for replay, each in rows)
    # what an encoder-decoder always writes first is nothing that the engine chooses
    opening = trained.adapted.model.generation_config.forced_bos_token_id
    return tuple(_row(replay, each, opening) for replay, each in rows)


def _text(replay: Replay, labels: Sequence[str], figures: Sequence[float]) -> ReplayedText:
    assert isinstance(replay.prompt, TextPrompt)
    logprobs = dict(zip(labels, figures, strict=True))
    return ReplayedText(line=replay.row.line, text=replay.prompt.text, logprobs=logprobs)


def _row(replay: Replay, figures: Sequence[float], opening: int | None) -> ReplayedRow:
    answer, logprobs = replay.answer, list[float | None](figures)
    match replay.row:
        case SourceTargetRow(target=target):
            if target[0] == opening and len(target) > 1:
                answer, logprobs = answer[1:], logprobs[1:]
            logprobs = [*(None for _ in replay.prompt_ids), *logprobs]
        case Row(trained=trained):
            found = iter(figures)
            logprobs = [next(found) if is_trained else None for is_trained in trained]
        case LabelledRow():
            raise TypeError("a text to label has no tokens to replay; `_text` describes it")
        case _:
            assert_never(replay.row)
    return ReplayedRow(
        line=replay.row.line,
        prompt=replay.prompt,
        prompt_ids=replay.prompt_ids,
        answer=answer,
        logprobs=tuple(logprobs),
    )
