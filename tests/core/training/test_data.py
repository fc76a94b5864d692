import json
from pathlib import Path

import pytest

from core.errors import TrainingFailed
from core.spec.strategy import PrefixSpec
from core.spec.workspace import Workspace
from core.training.data import load_dataset
from core.training.inputs import inputs_of


def chat(question, answer):
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


@pytest.fixture
def load(job, tmp_path):
    """Return a function from rows and a job's settings to the dataset of the run."""

    def build(*rows, validation=(), columns=None, **settings):
        workspace = Workspace(folder=tmp_path)
        files = {workspace.train_file: rows, workspace.validation_file: validation}
        for path, lines in files.items():
            if lines:
                path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        spec = job(**settings).model_copy(update={"columns": columns or {}})
        return load_dataset(inputs_of(spec, spec.base), workspace)

    return build


def lines(rows):
    return [row.line for row in rows]


A, B, C = chat("a", "x"), chat("b", "y"), chat("c", "z")


def test_duplicates_are_counted_and_trained(load):
    dataset = load(A, B, A, A, C)
    assert lines(dataset.rows) == [1, 2, 3, 4, 5]
    said = dataset.described(total_steps=1)
    assert (said.duplicate_rows, said.duplicate_lines) == (2, (3, 4))


def test_rows_are_read_with_the_columns_of_the_job(load):
    asked = {"question": "a", "answer": "x", "level": 1}
    mapped = load(asked, columns={"instruction": "question", "output": "answer"})
    assert mapped.rows == load(A).rows


def test_validation_rows_that_are_trained_on_are_counted(load):
    said = load(A, B, validation=[C, B, A, B]).described(total_steps=1)
    assert (said.validation_rows, said.shared_rows) == (4, 3)
    assert load(A, B, validation=[C]).described(total_steps=1).shared_rows == 0


def test_duplicates_are_left_out_when_asked_for(load):
    dataset = load(A, B, A, A, C, deduplicate=True)
    assert lines(dataset.rows) == [1, 2, 5]
    said = dataset.described(total_steps=1)
    assert (said.rows, said.duplicate_rows) == (3, 2)


def test_split_takes_the_same_rows_for_the_same_seed(load):
    rows = [chat(f"{n}", "x") for n in range(40)]
    first, again, other = (load(*rows, seed=seed, evaluation={"split": 0.25}) for seed in (1, 1, 2))
    held = lines(first.validation_rows)
    assert len(held) == 10 == first.described(1).held_out_rows
    assert sorted(held + lines(first.rows)) == list(range(1, 41))
    assert held == lines(again.validation_rows) != lines(other.validation_rows)


@pytest.mark.parametrize("seed", range(8))
def test_equal_rows_are_never_on_both_sides_of_a_split(load, seed):
    rows = [chat(f"{n % 5}", "x") for n in range(20)]
    dataset = load(*rows, seed=seed, evaluation={"split": 0.2})
    trained = {row.tokens for row in dataset.rows}
    held = {row.tokens for row in dataset.validation_rows}
    assert trained and held and not trained & held
    assert len(dataset.validation_rows) == 4


def test_split_that_leaves_nothing_to_train_is_refused(load):
    with pytest.raises(TrainingFailed, match="does not have two different rows") as caught:
        load(A, A, A, evaluation={"split": 0.5})
    assert caught.value.param == "evaluation.split"
    assert len(load(A, B, A, A, evaluation={"split": 0.01}).validation_rows) in (1, 3)


def test_validation_file_makes_the_split_needless(load):
    dataset = load(A, B, validation=(C,), evaluation={"split": 0.5})
    assert (lines(dataset.rows), lines(dataset.validation_rows)) == ([1, 2], [1])
    assert dataset.described(1).held_out_rows == 0


@pytest.mark.parametrize(
    ("side", "row"), [("start", chat("q" * 80, "x")), ("end", chat("q", "x" * 80))]
)
def test_rows_that_are_too_long_are_cut_when_asked_for(load, side, row):
    dataset = load(A, row, B, row, max_length=64, truncation=side)
    assert max(row.length for row in dataset.rows) == 64
    said = dataset.described(total_steps=1)
    assert (said.truncated_rows, said.truncated_lines) == (2, (2, 4))


def test_row_whose_trained_tokens_would_all_be_cut_is_named(load):
    with pytest.raises(TrainingFailed, match="Line 2 of the training file"):
        load(A, chat("q" * 80, "x"), max_length=32, truncation="end")


def test_virtual_tokens_take_their_part_of_the_context(load):
    row = chat("q", "x" * 200)
    fits = load(row, max_length=256).rows[0].length
    spare = 256 - fits
    load(row, strategy=PrefixSpec(virtual_tokens=spare), max_length=256)
    with pytest.raises(TrainingFailed, match=rf"context of the base model \({fits - 1}\)"):
        load(row, strategy=PrefixSpec(virtual_tokens=spare + 1), max_length=256)


@pytest.mark.parametrize(("vocab_size", "says"), [(100, "has only 100 tokens"), (262, None)])
def test_token_that_the_base_lacks_is_named_with_its_line(load, base_spec, vocab_size, says):
    config = Path(base_spec.source) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": vocab_size}))
    if says is None:
        assert len(load(A, B).rows) == 2
        return
    with pytest.raises(TrainingFailed, match=f"Lines 1, 2 of the training file: .*{says}"):
        load(A, B)


def test_lengths_are_counted_in_buckets(load):
    dataset = load(A, B, chat("q", "x" * 60), chat("q", "x" * 150), max_length=256)
    counted = {bucket.tokens: bucket.rows for bucket in dataset.described(1).lengths}
    expected = {16: 0, 32: 0, 64: 0, 128: 0, 256: 0}
    for row in dataset.rows:
        expected[min(bound for bound in expected if bound >= row.length)] += 1
    assert counted == expected and sum(counted.values()) == 4
