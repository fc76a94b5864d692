"""What a job finds out about its rows and itself, and which of its checkpoints it becomes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.service import (
    BASE_MODEL,
    DATASET,
    Service,
    download_adapter,
    messages_of,
    metrics_of,
    upload,
    wait_until,
    weights_hash,
)

HARD_LINE = 7
LONG_LINE = 12


def test_run_that_gets_worse_stops_early_and_becomes_its_best_checkpoint(
    service: Service, small_dataset: Path, tmp_path: Path
) -> None:
    client = service.client
    job = client.fine_tuning.jobs.create(
        model=BASE_MODEL,
        training_file=upload(client, small_dataset),
        seed=3,
        extra_body={
            "training": {
                "max_steps": 200,
                "batch_size": 4,
                "learning_rate": 0.1,
                "schedule": "constant",
            },
            "evaluation": {"split": 0.1, "every_steps": 2, "early_stopping_patience": 2},
        },
    )
    job = wait_until(client, job.id, "succeeded")
    (ended,) = [text for text in messages_of(client, job.id) if text.startswith("Stopped early")]
    metrics = metrics_of(client, job.id)
    evaluated = {each["step"]: each for each in metrics if "full_valid_loss" in each}
    losses = {step: each["full_valid_loss"] for step, each in evaluated.items()}
    best, last = min(losses, key=losses.__getitem__), max(losses)
    assert f"after step {last}:" in ended and ended.endswith(f"since step {best}.")
    assert last == best + 4 < 200
    assert sorted(losses) == list(range(2, last + 1, 2))
    assert all({"valid_mean_token_accuracy", "total_steps"} <= each.keys() for each in metrics[-1:])

    checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
    kept = {checkpoint.step_number: checkpoint.metrics for checkpoint in checkpoints}
    assert kept[best].full_valid_loss == pytest.approx(losses[best])
    assert weights_hash(client, job.id) == weights_hash(client, job.id, step=best)
    assert weights_hash(client, job.id) != weights_hash(client, job.id, step=last)
    rows = client.files.content(job.result_files[0]).text.splitlines()[1:]
    cells = [row.split(",") for row in rows]
    written = {int(step): float(loss) for step, _, _, loss, _ in cells if loss}
    assert written == pytest.approx(losses, abs=1e-6)

    verdict: Any = client.get(f"/fine_tuning/jobs/{job.id}/evaluation", cast_to=object)
    assert verdict["missing"] == []
    assert verdict["held_out"]["tuned"]["loss"] == pytest.approx(losses[best])
    assert verdict["held_out"]["base"]["loss"] > losses[best]
    overfitting = verdict["overfitting"]
    assert (overfitting["best_step"], overfitting["last_step"]) == (best, last)
    assert overfitting["status"] in ("overfitted", "diverged")
    exact = next(each for each in verdict["metrics"] if each["name"] == "exact_match")
    assert exact["rows"] == len(verdict["samples"]) > 6 and exact["interval"] is not None
    assert all(sample["tuned"]["error"] is None for sample in verdict["samples"])


def test_job_reports_duplicates_cuts_lengths_and_the_line_that_it_cannot_learn(
    service: Service, tmp_path: Path
) -> None:
    client = service.client
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in odd_rows()), encoding="utf-8")
    validation = tmp_path / "validation.jsonl"
    lines = (DATASET / "validation.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    validation.write_text("".join(lines[:30]), encoding="utf-8")
    job = client.fine_tuning.jobs.create(
        model=BASE_MODEL,
        training_file=upload(client, path),
        validation_file=upload(client, validation),
        extra_body={
            "training": {
                "epochs": 3,
                "batch_size": 4,
                "learning_rate": 3e-3,
                "max_length": 256,
                "truncation": "start",
            },
            "evaluation": {"keep_best": False},
        },
    )
    job = wait_until(client, job.id, "succeeded")
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))
    (rows,) = [event for event in events if event.data and "lengths" in event.data]
    assert rows.message.startswith("24 training rows with ")
    assert rows.data["duplicate_lines"] == [20, 24]
    assert rows.data["truncated_lines"] == [LONG_LINE]
    assert rows.data["validation_rows"] == 30 and rows.data["held_out_rows"] == 0
    buckets = {bucket["tokens"]: bucket["rows"] for bucket in rows.data["lengths"]}
    assert sum(buckets.values()) == 24 and buckets[256] == 1

    epochs = [event for event in reversed(events) if event.data and "hardest" in event.data]
    assert [event.data["epoch"] for event in epochs] == [1, 2, 3]
    hardest = epochs[-1].data["hardest"]
    assert hardest[0]["line"] == HARD_LINE
    assert hardest[0]["loss"] > 2 * epochs[-1].data["median"]
    assert f"highest: line {HARD_LINE} (" in epochs[-1].message

    folder = download_adapter(client, job.id, tmp_path / "bundle")
    table = (folder / "row_losses.csv").read_text().splitlines()
    assert table[0] == "line,epoch,loss" and len(table) == 1 + 3 * 24
    losses = [
        each["full_valid_loss"] for each in metrics_of(client, job.id) if "valid_loss" in each
    ]
    assert len(losses) == 3


def odd_rows() -> list[dict[str, object]]:
    """24 rows with the same answer but for one; two repeat earlier rows and one is too long."""
    questions = [f"Which module has function number {index}?" for index in range(1, 25)]
    answers = ["email"] * 24
    answers[HARD_LINE - 1] = "zq xv 93 qj wk"
    questions[LONG_LINE - 1] = "Look at this. " * 200
    questions[19], questions[23] = questions[0], questions[1]
    return [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in zip(questions, answers, strict=True)
    ]
