"""What must hold whatever happens: rescue, repeatability, clean refusals."""

import os
import signal
import sqlite3
import time
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from tests.end_to_end.service import (
    BASE_MODEL,
    Service,
    submit,
    upload,
    wait_until,
    weights_hash,
)

FAULTY_FILES = {
    "broken JSON": (b'{"messages": [\n', "line 1"),
    "unknown role": (
        b'{"messages": [{"role": "usr", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
        "messages[0].role",
    ),
    "nothing to train": (b'{"messages": [{"role": "user", "content": "a"}]}\n', "assistant"),
}


def test_killed_worker_loses_no_job(service: Service, small_dataset: Path) -> None:
    client = service.client
    job = submit(client, upload(client, small_dataset), epochs=6, suffix="rescue")
    wait_until(client, job.id, "running")
    time.sleep(0.5)
    os.kill(service.worker().pid, signal.SIGKILL)
    job = wait_until(client, job.id, "succeeded")
    messages = [e.message for e in client.fine_tuning.jobs.list_events(job.id, limit=100)]
    assert any("worker was lost" in message for message in messages)
    assert messages.count("The job has successfully completed") == 1


def test_masks_are_shown_while_a_job_trains_also_after_their_worker_was_killed(
    service: Service, small_dataset: Path
) -> None:
    client = service.client
    file_id = upload(client, small_dataset)
    job = submit(client, file_id, epochs=50)
    wait_until(client, job.id, "running")
    assert mask_status(service, file_id) == "succeeded"
    os.kill(service.worker("worker.light").pid, signal.SIGKILL)
    assert mask_status(service, file_id) == "succeeded"
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"


def mask_status(service: Service, file_id: str) -> str:
    """Ask for a mask and wait for it."""
    body = {"model": BASE_MODEL, "training_file": file_id}
    with httpx.Client(base_url=f"{service.url}/v1/fine_tuning", trust_env=False) as client:
        mask = client.post("/masks", json=body).raise_for_status().json()
        deadline = time.monotonic() + 180
        while mask["status"] == "queued" and time.monotonic() < deadline:
            time.sleep(0.1)
            mask = client.get(f"/masks/{mask['id']}").raise_for_status().json()
    return str(mask["status"])


def test_same_seed_gives_the_same_adapter(service: Service, small_dataset: Path) -> None:
    client = service.client
    file_id = upload(client, small_dataset)
    jobs = [submit(client, file_id, epochs=1, seed=seed) for seed in (3, 3, 4)]
    for job in jobs:
        wait_until(client, job.id, "succeeded")
    first, second, other = (weights_hash(client, job.id) for job in jobs)
    assert first == second
    assert first != other


@pytest.mark.parametrize("kind", FAULTY_FILES)
def test_faulty_file_is_refused_with_its_line(service: Service, tmp_path: Path, kind: str) -> None:
    content, clue = FAULTY_FILES[kind]
    path = tmp_path / "faulty.jsonl"
    path.write_bytes(content)
    client = service.client
    file_id = upload(client, path)
    jobs_before = len(client.fine_tuning.jobs.list(limit=100).data)
    with pytest.raises(openai.BadRequestError) as refused:
        submit(client, file_id)
    assert refused.value.param == "training_file"
    assert clue in refused.value.message
    assert len(client.fine_tuning.jobs.list(limit=100).data) == jobs_before


def test_wrong_requests_name_the_field(service: Service, small_dataset: Path) -> None:
    client = service.client
    file_id = upload(client, small_dataset)
    good = {"model": BASE_MODEL, "training_file": file_id}
    wrong = {
        "model": {"model": "tunesmith/tinny"},
        "training_file": {"training_file": "file-missing"},
        "method.supervised.hyperparameters.n_epochs": {
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": -1}}}
        },
        "strategy.rank": {"extra_body": {"strategy": {"type": "lora", "rank": 0}}},
    }
    for param, change in wrong.items():
        with pytest.raises(openai.APIStatusError) as refused:
            client.fine_tuning.jobs.create(**{**good, **change})
        assert 400 <= refused.value.status_code < 500
        assert refused.value.param == param, refused.value.message


def test_second_cancel_and_too_long_prompt_are_refused(
    service: Service, small_dataset: Path
) -> None:
    client = service.client
    job = submit(client, upload(client, small_dataset), epochs=20)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(openai.APIStatusError) as refused:
        client.fine_tuning.jobs.cancel(job.id)
    assert refused.value.param == "fine_tuning_job_id"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model=BASE_MODEL, messages=[{"role": "user", "content": "word " * 5000}]
        )
    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "messages"


def test_nothing_is_left_behind(service: Service, tuned: FineTuningJob) -> None:
    """After a job, whatever else this process tried: no claim is held, no message waits, every
    file has its blob."""
    database = sqlite3.connect(f"file:{service.data_folder}/tunesmith.db?mode=ro", uri=True)
    try:
        open_jobs = (
            "SELECT count(*) FROM jobs WHERE status NOT IN ('succeeded','failed','cancelled')"
        )
        assert database.execute(open_jobs).fetchone() == (0,)
        assert database.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
        for table in ("jobs", "tasks"):
            held = f"SELECT count(*) FROM {table} WHERE lease_expires_at IS NOT NULL"
            assert database.execute(held).fetchone() == (0,)
        keys = {key for (key,) in database.execute("SELECT blob_key FROM files")}
    finally:
        database.close()
    files = {f"files/{path.name}" for path in (service.data_folder / "storage" / "files").iterdir()}
    assert files == keys
