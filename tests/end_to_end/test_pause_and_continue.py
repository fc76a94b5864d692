"""Runs that stop and go on: paused, killed, and continued from what an earlier job has made."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.end_to_end.service import (
    BASE_MODEL,
    Service,
    messages_of,
    metrics_of,
    submit,
    upload,
    wait_until,
    weights_hash,
)
from tests.worker.workshop import training_child

STEPS = 240
"""So many that a run is caught in the middle."""


def submit_long_run(client: OpenAI, file_id: str, strategy: dict[str, object]) -> FineTuningJob:
    return client.fine_tuning.jobs.create(
        model=BASE_MODEL,
        training_file=file_id,
        seed=5,
        extra_body={
            "strategy": strategy,
            "training": {"max_steps": STEPS, "batch_size": 2, "learning_rate": 1e-4},
        },
    )


def step_of(client: OpenAI, job_id: str) -> int:
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert job.status not in ("succeeded", "failed", "cancelled"), job.to_json()
    return job.progress["step"]  # type: ignore[attr-defined, no-any-return]


def wait_for(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


def pause(client: OpenAI, job_id: str) -> int:
    """Pause a run; return the step after which it stands still."""
    client.fine_tuning.jobs.pause(job_id)
    wait_for(
        lambda: client.fine_tuning.jobs.retrieve(job_id).paused_at is not None,  # type: ignore[attr-defined]
        f"{job_id} is paused",
    )
    assert client.fine_tuning.jobs.retrieve(job_id).status == "queued"
    return step_of(client, job_id)


@pytest.mark.parametrize(
    "strategy",
    [
        {"type": "lora", "dropout": 0.1},
        pytest.param({"type": "qlora"}, marks=pytest.mark.slow),
        pytest.param({"type": "full"}, marks=pytest.mark.slow),
        pytest.param({"type": "prefix"}, marks=pytest.mark.slow),
    ],
    ids=lambda strategy: strategy["type"],
)
def test_paused_and_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    service: Service, small_dataset: Path, strategy: dict[str, object]
) -> None:
    client = service.client
    file_id = upload(client, small_dataset)
    halted, whole = (submit_long_run(client, file_id, strategy) for _ in range(2))
    wait_for(lambda: step_of(client, halted.id) > 5, "the run has begun")
    paused_at = pause(client, halted.id)
    assert paused_at > 5
    wait_until(client, whole.id, "running", "succeeded")  # its turn, while the other one waits
    client.fine_tuning.jobs.resume(halted.id)

    wait_until(client, whole.id, "succeeded")
    wait_for(lambda: step_of(client, halted.id) > paused_at, "the run goes on")
    os.kill(training_child(service.worker().pid).pid, signal.SIGKILL)
    wait_until(client, halted.id, "succeeded")

    messages = messages_of(client, halted.id)
    assert messages.count(f"The run goes on after step {paused_at}.") == 2
    assert any("killed by SIGKILL" in message for message in messages)
    assert messages.count("The job has successfully completed") == 1
    taken = [each["step"] for each in metrics_of(client, halted.id)]
    assert taken[:paused_at] == list(range(1, paused_at + 1))
    assert taken.count(paused_at) == 1  # nothing before the saved state was done again
    assert taken[-1] == STEPS
    assert weights_hash(client, halted.id) == weights_hash(client, whole.id)


def test_pause_before_the_start_is_held_until_resumed(
    service: Service, small_dataset: Path
) -> None:
    client = service.client
    file_id = upload(client, small_dataset)
    before = submit_long_run(client, file_id, {"type": "lora"})
    waiting = submit(client, file_id, epochs=1)
    client.fine_tuning.jobs.pause(waiting.id)
    client.fine_tuning.jobs.cancel(before.id)
    after = wait_until(client, submit(client, file_id, epochs=1).id, "succeeded")
    assert after.status == "succeeded"
    held = client.fine_tuning.jobs.retrieve(waiting.id)
    assert held.paused_at and held.status != "succeeded"  # type: ignore[attr-defined]
    client.fine_tuning.jobs.resume(waiting.id)
    wait_until(client, waiting.id, "succeeded")


def test_tuned_model_and_its_checkpoint_are_trained_further(
    service: Service, small_dataset: Path
) -> None:
    client = service.client
    file_id = upload(client, small_dataset)
    first = wait_until(client, submit(client, file_id, epochs=1).id, "succeeded")
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(first.id).data
    parents = (first.fine_tuned_model, checkpoint.fine_tuned_model_checkpoint)
    jobs = [
        client.fine_tuning.jobs.create(
            model=parent, training_file=file_id, seed=7, hyperparameters={"n_epochs": 1}
        )
        for parent in parents
    ]
    further = [wait_until(client, job.id, "succeeded") for job in jobs]
    assert [job.model for job in further] == [BASE_MODEL] * 2
    hashes = [weights_hash(client, job.id) for job in (first, *further)]
    # The last checkpoint and the final model are the same weights, so training goes on alike.
    assert hashes[0] != hashes[1] == hashes[2]
    answer = client.chat.completions.create(
        model=further[0].fine_tuned_model, messages=[{"role": "user", "content": "hello"}]
    )
    assert answer.model == further[0].fine_tuned_model
