"""Additional passes over the parity rows: with perturbed rounding, and without modules.

They measure how far rounding alone moves the figures, and how far a missing adapter would
(docs/decisions/0018-parity-measures-its-own-noise.md).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate

import torch

from core.adapters.adapted import AdaptedModel
from core.errors import TrainingFailed
from core.evaluation.rounding import perturbed_rounding
from core.models.precision import name_of
from core.spec.parity import Ablation, Repeat
from core.training.replayed import REPLAYED_ROWS, Replay
from core.training.trained import Trained

ABLATION_SEED = 1000
ENOUGH_FIGURES = 128
"""The number of figures in the rows that are run without the modules of each name."""
PLAIN_EFFECT = 8
"""A multiple of rounding: an adapter with a larger effect changes the figures clearly."""


@dataclass(frozen=True)
class Effort:
    """The number of passes."""

    rows: int
    repeats: int
    """Passes with perturbed rounding."""
    coarser_repeats: int
    """The same in a coarser format, in case the engine uses one."""
    ablates_names: bool
    """Whether the modules of each name are left out in turn, and not only the whole adapter."""


FINAL = Effort(REPLAYED_ROWS, repeats=4, coarser_repeats=2, ablates_names=True)
CHECKPOINT = Effort(rows=4, repeats=2, coarser_repeats=1, ablates_names=False)
"""A run may have many checkpoints, and waits for each. The final model has the same modules."""


class Stopped(Exception):
    """The run was asked to stop during a measurement."""


@dataclass(frozen=True)
class Measurement:
    """Additional passes over the rows. A pass that runs out of memory is skipped."""

    trained: Trained
    adapted: AdaptedModel
    replays: Sequence[Replay]
    figures: Sequence[Sequence[float]]
    stop: Callable[[], bool]
    effort: Effort

    def repeats(self) -> Iterator[Repeat]:
        """Yield the rows with perturbed rounding, in training's format and in a coarser one."""
        own, effort = self.trained.dtype, self.effort
        coarser = [] if own == torch.bfloat16 else [torch.bfloat16] * effort.coarser_repeats
        for seed, dtype in enumerate([own] * effort.repeats + coarser):
            if (found := self._rounded(len(self.replays), seed, dtype)) is not None:
                yield Repeat(precision=name_of(dtype), figures=found)

    def ablations(self, repeats: Sequence[Repeat]) -> Iterator[Ablation]:
        """Yield the rows without the adapter, then, if wanted, without the modules of each name.

        The latter need only the first rows, unless the adapter has a small effect.
        """
        adapted = self.adapted
        if adapted.config is None:
            return  # the complete model was trained, so there is no base to compare with
        by_name = _by_name(adapted)
        rows = len(self.replays)
        base = self._ablated(rows, adapted.off())
        if base is not None:
            names = next(iter(by_name)) if len(by_name) == 1 else "the whole adapter"
            count = max(1, len(adapted.replaced)) if len(by_name) == 1 else 1
            yield Ablation(modules=names, count=count, is_whole=True, figures=base)
            if self._is_plain(base, repeats):
                rows = self._enough_rows()
        if len(by_name) == 1 or not self.effort.ablates_names:
            return
        saved = set(getattr(adapted.config, "modules_to_save", None) or ())
        if kept := saved & by_name.keys():  # an engine may run only these and ignore the others
            others = [path for name in by_name.keys() - saved for path in by_name[name]]
            by_name[f"all but {', '.join(sorted(kept))}"] = others
        for name, paths in by_name.items():
            if (found := self._ablated(rows, adapted.without(paths))) is not None:
                yield Ablation(modules=name, count=len(paths), figures=found)

    def _ablated(
        self, rows: int, ablated: AbstractContextManager[None]
    ) -> tuple[float, ...] | None:
        """Run without modules, with different rounding, independent of that of the figures."""
        with ablated:
            return self._rounded(rows, ABLATION_SEED, self.trained.dtype)

    def _rounded(self, rows: int, seed: int, dtype: torch.dtype) -> tuple[float, ...] | None:
        """Return finite figures of the first rows with perturbed rounding in `dtype`, or None."""
        if self.stop():
            raise Stopped
        replays = self.replays[:rows]
        try:
            with perturbed_rounding(self.adapted.model, seed, dtype):
                found = self.trained.figures(self.adapted, replays)
        except TrainingFailed:
            return None
        told = self.trained.told(replays, found)
        return told if is_finite(told) else None

    def _is_plain(self, base: Sequence[float], repeats: Sequence[Repeat]) -> bool:
        """Return whether the adapter has a far larger effect than rounding."""
        figures = self.trained.told(self.replays, self.figures)
        rounding = [each.figures for each in repeats]
        noise = max((mean_distance([each], [figures]) for each in rounding), default=0.0)
        return mean_distance([base], [figures]) > PLAIN_EFFECT * noise

    def _enough_rows(self) -> int:
        """Return the number of first rows that have ENOUGH_FIGURES in total."""
        counts = accumulate(len(each) for each in self.figures)
        enough = (rows for rows, count in enumerate(counts, 1) if count >= ENOUGH_FIGURES)
        return next(enough, len(self.figures))


def _by_name(adapted: AdaptedModel) -> dict[str, list[str]]:
    """Return the paths of replaced modules by their last name, such as v_proj."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in adapted.replaced:
        name = next(part for part in reversed(path.split(".")) if not part.isdigit())
        by_name[name].append(path)
    return by_name


def is_finite(figures: Sequence[float]) -> bool:
    return all(map(math.isfinite, figures))


def mean_distance(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    return sum(abs(a - b) for a, b in pairs) / len(pairs)
