"""A mask audit shows what a run trains on: its tokens put together are the text."""

import json

import pytest

from core.errors import TrainingFailed
from core.spec.events import DatasetValidated, MaskAudited
from core.spec.mask import AUDITED_ROWS
from core.spec.objective import ClassificationSpec, DpoSpec, KtoSpec, PretrainingSpec
from core.training.mask import audit_file
from core.training.recipe import train


def write(workspace, *rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    workspace.train_file.write_text(text, encoding="utf-8")


def trained_text(part):
    return "".join(token.text for token in part.tokens if token.trained)


def whole_text(part):
    return "".join(token.text for token in part.tokens)


def test_only_what_the_assistant_writes_is_trained(job, workspace):
    conversation = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "no", "weight": 0},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "yes"},
    ]
    write(workspace, {"messages": conversation})
    (row,) = audit_file(job(), workspace)
    (part,) = row.parts
    assert trained_text(part) == "yes<|im_end|>"
    assert "again" in whole_text(part)
    assert part.total_tokens == len(part.tokens)
    assert part.trained_tokens == sum(token.trained for token in part.tokens)


def test_pairs_show_both_answers(job, workspace):
    write(workspace, {"prompt": "a or b?", "chosen": " a", "rejected": " b"})
    (row,) = audit_file(job().model_copy(update={"objective": DpoSpec()}), workspace)
    assert [part.name for part in row.parts] == ["chosen", "rejected"]
    assert trained_text(row.parts[0]).startswith(" a")
    assert trained_text(row.parts[1]).startswith(" b")


def test_rated_answer_is_shown_with_its_rating(job, workspace):
    write(
        workspace,
        {"prompt": "a or b?", "completion": " a", "label": True},
        {"prompt": "a or b?", "completion": " b", "label": False},
    )
    rows = audit_file(job().model_copy(update={"objective": KtoSpec()}), workspace)
    assert [trained_text(row.parts[0])[:2] for row in rows] == [" a", " b"]
    assert [row.labels for row in rows] == [("true",), ("false",)]


def test_classified_text_trains_no_token_and_names_its_label(job, workspace):
    write(workspace, {"text": "hello", "label": "x"}, {"text": "bye", "label": "y"})
    objective = ClassificationSpec(labels=("x", "y"))
    spec = job().model_copy(update={"objective": objective, "task": "classification"})
    rows = audit_file(spec, workspace)
    assert [row.labels for row in rows] == [("x",), ("y",)]
    assert [row.parts[0].trained_tokens for row in rows] == [0, 0]


def test_plain_text_trains_all_but_its_first_token(job, workspace):
    write(workspace, {"text": "hello world"})
    (row,) = audit_file(job().model_copy(update={"objective": PretrainingSpec()}), workspace)
    assert row.parts[0].trained_tokens == row.parts[0].total_tokens - 1


def test_long_rows_are_cut_or_refused_as_in_the_run(job, workspace):
    write(workspace, {"prompt": "x" * 40, "completion": "yes"})
    spec = job(max_length=20)
    with pytest.raises(TrainingFailed, match=r"Line 1 .* more than training.max_length \(20\)"):
        audit_file(spec, workspace)
    cut = spec.training.model_copy(update={"truncation": "start"})
    (row,) = audit_file(spec.model_copy(update={"training": cut}), workspace)
    assert row.parts[0].total_tokens == 20
    assert trained_text(row.parts[0]).startswith("yes")


def test_faulty_row_is_named_with_its_line(job, workspace):
    write(workspace, {"text": "fine"}, {"text": "but no label", "label": "z"})
    with pytest.raises(TrainingFailed, match="Line 2 ") as failed:
        audit_file(job(), workspace)
    assert failed.value.code == "invalid_training_file"


def test_run_says_its_mask_once_the_files_are_valid(job, workspace):
    events = train(job(), workspace, lambda: False)
    for event in events:
        if isinstance(event, DatasetValidated):
            break
    mask = next(events)
    assert isinstance(mask, MaskAudited)
    assert [row.line for row in mask.rows] == list(range(1, AUDITED_ROWS + 1))
