"""The loss of every row in every epoch, which shows the lines that the model does not learn."""

# R rows

import csv
import io
from collections.abc import Sequence

import torch
from torch import Tensor

from core.batching.rows import TrainingRow
from core.spec.events import RowLoss, RowLosses

HARDEST_ROWS = 20
KEPT_EPOCHS = 100
"""Only the last epochs are kept, for long runs over few rows."""


class RowLossTable:
    """The loss of each row in each epoch, at the time the row was trained."""

    def __init__(self, rows: Sequence[TrainingRow]) -> None:
        self._lines_R = torch.tensor([row.line for row in rows])
        self._targets_R = torch.tensor([row.targets for row in rows], dtype=torch.float32)
        self.epochs: dict[int, Tensor] = {}
        """The sum over the targets of each row (R,), fp32; NaN before it is trained."""

    def note(self, epoch: int, indices: Sequence[int], losses: Tensor) -> None:
        """Record the losses of a step, in the order of its rows."""
        if epoch not in self.epochs:
            self.epochs[epoch] = torch.full_like(self._targets_R, float("nan"))
            self.epochs.pop(epoch - KEPT_EPOCHS, None)
        self.epochs[epoch][list(indices)] = losses.float()

    def summary(self, epoch: int) -> RowLosses:
        """Return a summary of an epoch: the lines with the highest losses, and the median."""
        lines, means = self._by_line(self.epochs[epoch])
        hardest = means.argsort(descending=True, stable=True)[:HARDEST_ROWS]
        return RowLosses(
            epoch=epoch,
            median=means.median().item(),
            hardest=tuple(
                RowLoss(line=int(lines[index]), loss=means[index].item()) for index in hardest
            ),
        )

    def as_csv(self) -> str:
        """Return `line, epoch, loss` as CSV, with the mean loss per target of each line."""
        out = io.StringIO()
        write = csv.writer(out, lineterminator="\n").writerow
        write(["line", "epoch", "loss"])
        for epoch, losses_R in self.epochs.items():
            lines, means = self._by_line(losses_R)
            for line, mean in zip(lines.tolist(), means.tolist(), strict=True):
                write([line, epoch, f"{mean:.6f}"])
        return out.getvalue()

    def _by_line(self, losses_R: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sorted trained lines and their mean losses per target.

        A long text is several rows of one line.
        """
        seen_R = ~losses_R.isnan()
        lines, positions = self._lines_R[seen_R].unique(return_inverse=True)
        sums = torch.zeros(len(lines)).index_add_(0, positions, losses_R[seen_R])
        targets = torch.zeros(len(lines)).index_add_(0, positions, self._targets_R[seen_R])
        return lines, sums / targets
