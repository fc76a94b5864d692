"""The quality table: its arithmetic, its scores, and one cell of each side on a toy budget."""

import json
from dataclasses import replace

import pytest

from bench import quality, quality_cells, quality_table
from bench.quality_cells import BUDGETS, STRATEGIES, Budget, Cell, Outcome, rows_of, score_of
from bench.quality_table import Compared

TOY = Budget("tiny", "module of a docstring", 8, 6, answer_tokens=4, longest=80)


def outcome(*right: int, seconds: float = 1.0) -> Outcome:
    answers = tuple("x" for _ in right)
    return Outcome(2, 1, 4, 1e-3, seconds, 2**20, (1.0, 0.5), answers, tuple(map(bool, right)))


def test_the_difference_is_that_of_the_means_over_seeds():
    found = Compared((outcome(1, 1, 0, 0), outcome(1, 1, 1, 1)), (outcome(1, 0, 0, 0),) * 2)
    assert found.difference == pytest.approx(0.75 - 0.25)


def test_the_error_is_the_larger_of_that_of_seeds_and_that_of_answers():
    seeds_disagree = Compared(
        (outcome(1, 1, 1, 1), outcome(0, 0, 0, 0)), (outcome(0, 0, 0, 0), outcome(1, 1, 1, 1))
    )
    assert seeds_disagree.error == pytest.approx(2 * 2**0.5 / 2**0.5)  # differences 1 and -1
    answers_disagree = Compared((outcome(1, 0),) * 2, (outcome(0, 1),) * 2)
    assert answers_disagree.error == pytest.approx(2 * (4 / 3) ** 0.5 / 2)  # 1, -1, 1, -1


def test_the_same_answers_have_no_error_and_one_wrong_side_is_below():
    same = Compared((outcome(1, 0),) * 3, (outcome(1, 0),) * 3)
    assert (same.difference, same.error, same.is_as_good) == (0, 0, True)
    worse = Compared((outcome(0, 0, 0, 0),) * 3, (outcome(1, 1, 1, 1),) * 3)
    assert worse.difference == -1
    assert not worse.is_as_good


def test_the_report_names_what_is_below_and_what_is_missing(monkeypatch):
    monkeypatch.setattr(quality_table, "BUDGETS", (TOY,))
    found = {Cell(TOY, "untrained", 1, "untrained"): outcome(0, 1)}
    for seed in quality_cells.SEEDS:
        found[Cell(TOY, "lora", seed, "ours")] = outcome(0, 0, seconds=3.0)
        found[Cell(TOY, "lora", seed, "peer")] = outcome(1, 1, seconds=4.0)
    lines = quality_table.report(found).splitlines()
    (row,) = [line for line in lines if line.startswith("| lora")]
    assert "**below**" in row and "| 3.0 | 4.0 | 1 | 1 |" in row
    assert "- tiny, module of a docstring, lora: -1.000 ± 0.000" in lines
    assert any("docstring: full (seeds: 0), qlora" in line for line in lines)
    assert any(line.endswith("Untrained: 0.500.") for line in lines)


def test_calls_are_equal_by_value_and_anything_else_is_wrong():
    is_right = score_of("call of a tool")
    wanted = json.dumps({"name": "f", "arguments": {"a": 1, "b": "x"}})
    assert is_right(wanted, '{"arguments": {"b": "x", "a": 1.0}, "name": "f"}')
    for wrong in ("", "f(1)", "{}", "[]", '{"name": "f", "arguments": {"a": 1}}', wanted + "}"):
        assert not is_right(wanted, wrong)
    assert score_of("sums")("12", " 12\n") and not score_of("sums")("12", "12.")


def test_every_base_has_a_complete_task_before_any_has_a_second():
    first = [budget.base for budget in BUDGETS[:3]]
    assert sorted(first) == sorted(quality_cells.BASES)
    of_one = list(quality.cells(TOY))
    assert len(of_one) == 3 * (2 * len(STRATEGIES) + 1)


@pytest.mark.filterwarnings("ignore")  # those of TRL and PEFT are not ours to mend
def test_both_sides_train_on_the_same_steps_and_answer_every_row(monkeypatch, tmp_path):
    from bench.quality_run import measure

    ours = measure(Cell(TOY, "full", 1, "ours"))
    theirs = measure(Cell(TOY, "full", 1, "peer"))
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-3)
    assert ours.learning_rate == theirs.learning_rate
    for each in (ours, theirs):
        assert each.steps == each.epochs * TOY.rows / each.batch_size == len(each.losses)
        assert len(each.right) == len(each.answers) == TOY.held_out
        assert each.seconds > 0 and each.peak_bytes > 0
    assert ours.answers == theirs.answers


def test_a_cell_is_stored_and_read_again(monkeypatch, tmp_path):
    monkeypatch.setattr(quality, "RESULTS", tmp_path / "outcomes.jsonl")
    cell, measured = Cell(TOY, "lora", 2, "peer"), replace(outcome(1, 0), failure="too high")
    quality.store(cell, measured)
    assert quality.stored() == {cell: measured}


def test_held_out_rows_are_not_trained_on():
    rows = rows_of(TOY, 1)
    assert not {json.dumps(row) for row in rows.train} & {json.dumps(x) for x in rows.held_out}
    assert all(len(quality_cells.question(row)) <= TOY.longest for row in rows.train)
