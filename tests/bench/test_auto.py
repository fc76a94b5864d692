"""The benchmark of `auto`: what its score means, and that its data do not leak."""

import json
from pathlib import Path

from bench.auto import ENOUGH, Compared, Grid, compare, table
from bench.auto_data import take
from bench.auto_runs import Bench, Case, Score, objective_of
from core.spec.objective import ClassificationSpec, DpoSpec, PretrainingSpec, SupervisedSpec


def compared(*losses):
    """Of the rates 2e-4, 1e-3 (that of `auto`) and 4e-3; untrained it is 3."""
    found = dict(zip((2e-4, 1e-3, 4e-3), losses, strict=True))
    return Compared("sums", "tiny", "lora", 96, 48, 1, untrained=3.0, losses=found, auto=1e-3)


def test_the_score_is_the_share_of_what_the_best_rate_gains():
    found = compared(2.0, 1.1, 1.0)
    assert found.best == 4e-3
    assert found.share(4e-3) == 1
    assert abs(found.share(1e-3) - 0.95) < 1e-9
    assert found.share(2e-4) == 0.5


def test_a_rate_that_makes_it_worse_than_untrained_scores_below_nothing():
    found = compared(2.0, 3.5, 1.0)
    assert found.share(1e-3) < 0
    assert "**" not in table([found])[-1]


def test_an_auto_that_is_good_enough_is_bold_and_the_earlier_one_is_shown():
    row = table([compared(2.0, 1.05, 1.0)])[-1]
    assert f"**{0.975:.3f}**" in row and ENOUGH < 0.975
    assert row.endswith("| 0.500 |")


def test_no_row_is_on_both_sides_and_the_seed_draws_others(tmp_path):
    rows = take("module of a docstring", tmp_path, 50, 20, seed=1)
    assert (len(rows.train), len(rows.held_out)) == (50, 20)
    trained = {json.dumps(row) for row in rows.train}
    assert not trained & {json.dumps(row) for row in rows.held_out}
    assert take("module of a docstring", tmp_path, 50, 20, seed=1) == rows
    assert take("module of a docstring", tmp_path, 50, 20, seed=2) != rows


def test_a_datasets_rows_choose_the_objective(tmp_path):
    kinds = {
        "module of a docstring": SupervisedSpec,
        "docstrings": PretrainingSpec,
        "better module": DpoSpec,
        "module as a label": ClassificationSpec,
    }
    for name, kind in kinds.items():
        assert type(objective_of(take(name, tmp_path, 20, 5, seed=1))) is kind


def test_a_run_is_measured_once(tmp_path, monkeypatch):
    bench = Bench({}, tmp_path, tmp_path / "runs.jsonl")
    case, hyper = Case("sums", "tiny", 8), {"learning_rate": 1e-3}
    measured = []

    def measure(self, case, hyper):
        measured.append(hyper)
        return Score(1.0, 0.5, 3, 0.1)

    monkeypatch.setattr(Bench, "_measured", measure)
    assert not bench.has(case, hyper)
    assert bench.run(case, hyper) == bench.run(case, hyper)
    assert bench.has(case, hyper)
    assert len(measured) == 1


def test_the_table_leaves_out_a_case_whose_auto_was_not_measured(tmp_path, monkeypatch):
    tiny = Path(__file__).parents[2] / "core" / "models" / "tiny"
    bench = Bench({"tiny": tiny}, tmp_path, tmp_path / "runs.jsonl")
    monkeypatch.setattr(Bench, "_measured", lambda self, case, hyper: Score(1.0, 0.5, 3, 0.1))
    grid = Grid(Case("docstrings", "tiny", 48, 10), (1e-3, 2e-3, 4e-3), seeds=(1, 2))
    assert compare(bench, grid, measure=False) is None
    bench.run(grid.case, {"epochs": 3, "batch_size": 3, "learning_rate": 1e-3})
    assert compare(bench, grid, measure=False) is None
    everything = compare(bench, grid, measure=True)
    assert everything is not None
    assert set(everything.losses) == {2e-4, 1e-3, 2e-3, 4e-3, everything.auto}
    assert compare(bench, grid, measure=False) == everything
