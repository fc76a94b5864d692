"""A trained model, and its figures for a few rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import OutOfMemory
from core.batching.rows import SourceTargetRow
from core.evaluation.figures import figures_of
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec
from core.training.replayed import Replay


@dataclass(frozen=True)
class Trained:
    """A trained model, and its bundle, from which the engine will load it."""

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
        """Return the figures of the rows under `adapted`, a variant of the trained model, in nats.

        Raises TrainingFailed if a single row does not fit into memory.
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
        """Return the figures that the engine reports too, concatenated over all rows."""
        kept = (
            each[self.opening_tokens(replay) :]
            for replay, each in zip(replays, figures, strict=False)
        )
        return tuple(chain.from_iterable(kept))

    def opening_tokens(self, replay: Replay) -> int:
        """Return the number of fixed tokens at the start of the answer: 0 or 1.

        An encoder-decoder may always generate the same first token.
        """
        if not isinstance(replay.row, SourceTargetRow):
            return 0
        opening = self.adapted.model.generation_config.forced_bos_token_id
        target = replay.row.target
        return int(target[0] == opening and len(target) > 1)
