import csv
import io
from dataclasses import dataclass

import pytest
import torch

from core.training.row_losses import HARDEST_ROWS, KEPT_EPOCHS, RowLossTable


@dataclass(frozen=True)
class Piece:
    line: int
    targets: int
    length: int = 10


def test_hardest_lines_come_first_by_loss_per_target():
    table = RowLossTable([Piece(1, 2), Piece(2, 10), Piece(3, 1)])
    table.note(1, [2, 0], torch.tensor([3.0, 2.0]))
    table.note(1, [1], torch.tensor([5.0]))
    summary = table.summary(1)
    assert [(row.line, row.loss) for row in summary.hardest] == [(3, 3.0), (1, 1.0), (2, 0.5)]
    assert (summary.epoch, summary.median) == (1, 1.0)


def test_pieces_of_one_line_count_as_one_row():
    table = RowLossTable([Piece(7, 1), Piece(7, 3), Piece(9, 1)])
    table.note(1, [0, 1, 2], torch.tensor([1.0, 7.0, 4.0]))
    assert [(row.line, row.loss) for row in table.summary(1).hardest] == [(9, 4.0), (7, 2.0)]


def test_rows_that_were_not_trained_yet_are_left_out():
    table = RowLossTable([Piece(1, 1), Piece(2, 1)])
    table.note(2, [1], torch.tensor([4.0]))
    assert [row.line for row in table.summary(2).hardest] == [2]


def test_table_has_every_line_of_every_epoch():
    table = RowLossTable([Piece(1, 2), Piece(2, 1)])
    for epoch in (1, 2):
        table.note(epoch, [1, 0], torch.tensor([0.25, 3.0]) / epoch)
    assert list(csv.reader(io.StringIO(table.as_csv()))) == [
        ["line", "epoch", "loss"],
        ["1", "1", "1.500000"],
        ["2", "1", "0.250000"],
        ["1", "2", "0.750000"],
        ["2", "2", "0.125000"],
    ]


def test_report_and_table_are_bounded():
    table = RowLossTable([Piece(line, 1) for line in range(1, 101)])
    for epoch in range(1, KEPT_EPOCHS + 3):
        table.note(epoch, range(100), torch.arange(100.0))
    hardest = table.summary(KEPT_EPOCHS + 2).hardest
    assert [row.line for row in hardest] == list(range(100, 100 - HARDEST_ROWS, -1))
    assert list(table.epochs) == list(range(3, KEPT_EPOCHS + 3))


def test_losses_of_a_run_are_those_of_its_steps(job, workspace):
    from core.spec.events import RowLosses, StepDone
    from core.training.recipe import train

    events = list(train(job(max_steps=3, batch_size=16), workspace, lambda: False))
    steps = [event for event in events if isinstance(event, StepDone)]
    reports = [event for event in events if isinstance(event, RowLosses)]
    assert [report.epoch for report in reports] == [1, 2, 3]
    table = (workspace.bundle_folder / "row_losses.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert len(rows) == 3 * 16
    hardest = max((row for row in rows if row["epoch"] == "3"), key=lambda row: float(row["loss"]))
    assert int(hardest["line"]) == reports[-1].hardest[0].line
    assert float(hardest["loss"]) == pytest.approx(reports[-1].hardest[0].loss, abs=1e-6)
    assert reports[-1].median < reports[-1].hardest[0].loss
    assert reports[-1].hardest[-1].loss < steps[-1].loss < reports[-1].hardest[0].loss
