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
    upload,
    wait_until,
    weights_hash,
)
from tests.worker.workshop import training_child

STEPS = 150
"""So many that a run is caught in the middle."""


def submit_run(
    client: OpenAI, file_id: str, model: str, steps: int, **body: object
) -> FineTuningJob:
    training = {"max_steps": steps, "batch_size": 2, "learning_rate": 1e-4}
    return client.fine_tuning.jobs.create(
        model=model, training_file=file_id, seed=5, extra_body={"training": training, **body}
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
    ("strategy", "victim"),
    [
        pytest.param({"type": "lora", "dropout": 0.1}, "child", id="lora, child"),
        pytest.param({"type": "qlora"}, "worker", id="qlora, worker"),
        pytest.param({"type": "full"}, "child", id="full, child"),
        pytest.param({"type": "prefix"}, "worker", id="prefix, worker"),
    ],
)
def test_paused_and_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    service: Service, small_dataset: Path, strategy: dict[str, object], victim: str
) -> None:
    client = service.client
    file_id = upload(client, small_dataset)
    halted, whole = (
        submit_run(client, file_id, BASE_MODEL, STEPS, strategy=strategy) for _ in range(2)
    )
    wait_for(lambda: step_of(client, halted.id) > 5, "the run has begun")
    paused_at = pause(client, halted.id)
    assert paused_at > 5
    wait_until(client, whole.id, "running", "succeeded")  # its turn, while the other one waits
    client.fine_tuning.jobs.resume(halted.id)

    wait_until(client, whole.id, "succeeded")
    wait_for(lambda: step_of(client, halted.id) > paused_at, "the run goes on")
    worker = service.worker().pid
    os.kill(worker if victim == "worker" else training_child(worker).pid, signal.SIGKILL)
    wait_until(client, halted.id, "succeeded")

    messages = messages_of(client, halted.id)
    assert messages.count(f"Resumed from step {paused_at}.") == 2
    end = {"child": "killed by SIGKILL", "worker": "The worker was lost."}[victim]
    assert any(end in message for message in messages)
    assert messages.count("The job has successfully completed") == 1
    taken = [each["step"] for each in metrics_of(client, halted.id)]
    assert taken[:paused_at] == list(range(1, paused_at + 1))
    assert taken.count(paused_at) == 1  # nothing before the saved state was done again
    assert taken[-1] == STEPS
    assert weights_hash(client, halted.id) == weights_hash(client, whole.id)


def test_tuned_model_and_its_checkpoint_are_trained_further(
    service: Service, small_dataset: Path
) -> None:
    client = service.client
    file_id = upload(client, small_dataset)
    first = wait_until(client, submit_run(client, file_id, BASE_MODEL, 4).id, "succeeded")
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(first.id).data
    parents = (first.fine_tuned_model, checkpoint.fine_tuned_model_checkpoint)
    jobs = [submit_run(client, file_id, str(parent), 4) for parent in parents]
    further = [wait_until(client, job.id, "succeeded") for job in jobs]
    assert [job.model for job in further] == [BASE_MODEL] * 2
    hashes = [weights_hash(client, job.id) for job in (first, *further)]
    # The last checkpoint and the final model are the same weights, so training goes on alike.
    assert hashes[0] != hashes[1] == hashes[2]
    answer = client.chat.completions.create(
        model=further[0].fine_tuned_model, messages=[{"role": "user", "content": "hello"}]
    )
    assert answer.model == further[0].fine_tuned_model
