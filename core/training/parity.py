"""What training says of a few rows with the weights of the bundle, for others to compare with.

The worker asks the engine for the same rows before the model is published
(docs/decisions/0018-parity-knows-its-own-noise.md).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate, chain
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
from core.evaluation.rounding import perturbed_rounding
from core.models.attention import use_packed_attention
from core.models.load import load_base, load_config, outline
from core.models.precision import name_of
from core.spec.generation import TextPrompt
from core.spec.objective import ClassificationSpec
from core.spec.parity import (
    Ablation,
    ParityReference,
    Repeat,
    ReplayedRow,
    ReplayedText,
)
from core.spec.run import JobSpec
from core.spec.strategy import QloraSpec
from core.strategies.load import load_adapter
from core.training.activations import USABLE_SHARE, free_bytes
from core.training.replayed import REPLAYED_ROWS, Replay


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rows: int
    repeats: int
    """Passes that are rounded otherwise."""
    coarser_repeats: int
    """The same as a coarser format rounds, should the engine compute in one."""


FINAL = Effort(REPLAYED_ROWS, repeats=4, coarser_repeats=2)
CHECKPOINT = Effort(rows=4, repeats=2, coarser_repeats=1)
"""A run may have many, and waits for each."""

ABLATION_SEED = 1000
ENOUGH_FIGURES = 128
"""Of which rows have to be run without the modules of each name."""
PLAIN_EFFECT = 8
"""Times its rounding, by which an adapter changes the figures plainly."""


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
        """Return what `adapted`, in place of the trained model, says of the rows, in nats.

        Raises TrainingFailed when not even one row fits into memory.
        """
        objective = self.spec.objective
        multi_label = isinstance(objective, ClassificationSpec) and objective.multi_label
        rows = [replay.row for replay in replays]
        budget = self.budget_tokens
        while True:
            try:
                return figures_of(adapted, rows, budget, multi_label=multi_label)
            except OutOfMemory as shortage:
                budget = shortage.half
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()

    def told(
        self, replays: Sequence[Replay], figures: Sequence[Sequence[float]]
    ) -> tuple[float, ...]:
        """Return the figures that the engine gives as well, of all rows one after another."""
        kept = (
            each[_opening_tokens(self, replay) :]
            for replay, each in zip(replays, figures, strict=False)
        )
        return tuple(chain.from_iterable(kept))


def parity_reference(
    trained: Trained,
    replays: Sequence[Replay],
    stop: Callable[[], bool] = lambda: False,
    effort: Effort = FINAL,
) -> ParityReference | None:
    """Return what training says of `replays`, or why it can say nothing; None when told to stop.

    Of qlora it is the trained adapter on the base as it is served, since the quantised one that
    was trained on is another model (docs/decisions/0008-qlora-served-on-the-plain-base.md). The
    model is left as it was, in evaluation mode. Raises TrainingFailed for figures that are not
    finite.
    """
    precision, replays = name_of(trained.dtype), replays[: effort.rows]
    if not replays:
        return ParityReference(
            precision=precision, missing="every text was cut to the length limit"
        )
    try:
        adapted, gap = trained.adapted, None
        figures = trained.figures(adapted, replays)
        if _was_quantised_to_train(trained.spec):
            adapted, quantised = _on_the_served_base(trained), figures
            figures = trained.figures(adapted, replays)
            gap = _mean_distance(quantised, figures)
    except TrainingFailed as shortage:
        return ParityReference(precision=precision, missing=f"memory is too short: {shortage}")
    if not all(map(_is_finite, figures)):
        raise TrainingFailed(
            "The trained model gives log-probabilities that are no longer finite. Lower the "
            "learning rate or lengthen the warmup.",
            code="loss_nonfinite",
        )
    measuring = _Measuring(trained, adapted, replays, figures, stop, effort)
    try:
        repeats = tuple(measuring.repeats())
        ablations = tuple(measuring.ablations(repeats))
    except _Stopped:
        return None
    if not repeats:
        return ParityReference(
            precision=precision, missing="nothing tells how far rounding alone moves its figures"
        )
    return ParityReference(
        precision=precision,
        rows=_described(trained, replays, figures),
        repeats=repeats,
        ablations=ablations,
        quantisation_gap_nats=gap,
    )


class _Stopped(Exception):
    """The run was asked to stop in the middle of a measurement."""


@dataclass(frozen=True)
class _Measuring:
    """Further passes over the rows. Where memory runs out in one, it is left out."""

    trained: Trained
    adapted: AdaptedModel
    replays: Sequence[Replay]
    figures: Sequence[Sequence[float]]
    stop: Callable[[], bool]
    effort: Effort

    def repeats(self) -> Iterator[Repeat]:
        """Yield the rows rounded otherwise, as training's format does and as a coarser one does."""
        own, effort = self.trained.dtype, self.effort
        coarser = [] if own == torch.bfloat16 else [torch.bfloat16] * effort.coarser_repeats
        for seed, dtype in enumerate([own] * effort.repeats + coarser):
            if (found := self._rounded(len(self.replays), seed, dtype)) is not None:
                yield Repeat(precision=name_of(dtype), figures=found)

    def ablations(self, repeats: Sequence[Repeat]) -> Iterator[Ablation]:
        """Yield the rows without the whole adapter, then without the modules of each name.

        The first rows are enough for the latter, unless the adapter changes little.
        """
        adapted = self.adapted
        if adapted.config is None:
            return  # the whole model was trained: there is nothing to go back to
        by_name = _by_name(adapted)
        rows = len(self.replays)
        base = self._ablated(rows, adapted.off())
        if base is not None:
            names = next(iter(by_name)) if len(by_name) == 1 else "the whole adapter"
            count = max(1, len(adapted.replaced)) if len(by_name) == 1 else 1
            yield Ablation(modules=names, count=count, is_whole=True, figures=base)
            if self._is_plain(base, repeats):
                rows = self._enough_rows()
        if len(by_name) == 1:
            return
        saved = set(getattr(adapted.config, "modules_to_save", None) or ())
        if kept := saved & by_name.keys():  # an engine may run these and ignore all others
            others = [path for name in by_name.keys() - saved for path in by_name[name]]
            by_name[f"all but {', '.join(sorted(kept))}"] = others
        for name, paths in by_name.items():
            if (found := self._ablated(rows, adapted.without(paths))) is not None:
                yield Ablation(modules=name, count=len(paths), figures=found)

    def _ablated(
        self, rows: int, ablated: AbstractContextManager[None]
    ) -> tuple[float, ...] | None:
        """Run without modules. Its rounding is its own, or it would share that of the figures."""
        with ablated:
            return self._rounded(rows, ABLATION_SEED, self.trained.dtype)

    def _rounded(self, rows: int, seed: int, dtype: torch.dtype) -> tuple[float, ...] | None:
        """Return the figures of the first rows, all finite, rounded otherwise in `dtype`."""
        if self.stop():
            raise _Stopped
        replays = self.replays[:rows]
        try:
            with perturbed_rounding(self.adapted.model, seed, dtype):
                found = self.trained.figures(self.adapted, replays)
        except TrainingFailed:
            return None
        told = self.trained.told(replays, found)
        return told if _is_finite(told) else None

    def _is_plain(self, base: Sequence[float], repeats: Sequence[Repeat]) -> bool:
        """Say whether the adapter changes far more than rounding does."""
        figures = self.trained.told(self.replays, self.figures)
        rounding = [each.figures for each in repeats]
        noise = max((_mean_distance([each], [figures]) for each in rounding), default=0.0)
        return _mean_distance([base], [figures]) > PLAIN_EFFECT * noise

    def _enough_rows(self) -> int:
        """Return how many of the rows hold ENOUGH_FIGURES together."""
        counts = accumulate(len(each) for each in self.figures)
        enough = (rows for rows, count in enumerate(counts, 1) if count >= ENOUGH_FIGURES)
        return next(enough, len(self.figures))


def _by_name(adapted: AdaptedModel) -> dict[str, list[str]]:
    """Return the paths of replaced modules by the name that they share, such as v_proj."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in adapted.replaced:
        name = next(part for part in reversed(path.split(".")) if not part.isdigit())
        by_name[name].append(path)
    return by_name


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
        with torch.random.fork_rng(devices=[]):  # a classifier's head is drawn
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


def _mean_distance(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


def _described(
    trained: Trained, replays: Sequence[Replay], figures: Sequence[Sequence[float]]
) -> tuple[ReplayedRow, ...] | tuple[ReplayedText, ...]:
    rows = list(zip(replays, figures, strict=True))
    if trained.spec.task == "classification":
        return tuple(_text(replay, trained.labels, each) for replay, each in rows)
    return tuple(_row(replay, each, _opening_tokens(trained, replay)) for replay, each in rows)


def _text(replay: Replay, labels: Sequence[str], figures: Sequence[float]) -> ReplayedText:
    assert isinstance(replay.prompt, TextPrompt)
    logprobs = dict(zip(labels, figures, strict=True))
    return ReplayedText(line=replay.row.line, text=replay.prompt.text, logprobs=logprobs)


def _row(replay: Replay, figures: Sequence[float], opening: int) -> ReplayedRow:
    logprobs: list[float | None]
    match replay.row:
        case SourceTargetRow():
            logprobs = [*(None for _ in replay.prompt_ids), *figures[opening:]]
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
        answer=replay.answer[opening:],
        logprobs=tuple(logprobs),
    )


def _opening_tokens(trained: Trained, replay: Replay) -> int:
    """Return how many tokens begin the answer that the engine does not choose: 1 or none.

    It is what an encoder-decoder always writes first.
    """
    if not isinstance(replay.row, SourceTargetRow):
        return 0
    opening = trained.adapted.model.generation_config.forced_bos_token_id
    target = replay.row.target
    return int(target[0] == opening and len(target) > 1)
