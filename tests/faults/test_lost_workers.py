"""Workers and children that die, freeze or are told to go: no job is lost, none is done twice.

One real worker process is the victim; this process is the worker that comes to the rescue.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from core.jobs.state import FINAL, JobStatus
from core.records import outbox
from core.records.resume_states import states_of
from core.tasks.kinds import JOB, Work
from tests.processes import is_alive
from tests.worker.workshop import (
    ENDLESS_EPOCHS,
    Workshop,
    freeze,
    training_child,
    wait_until,
    worker_here,
    worker_process,
)

pytestmark = pytest.mark.usefixtures("housekeeper")

VICTIM = "worker-victim"
COMPLETED = "The job has successfully completed"


@pytest.fixture(scope="module")
def victim(workshop: Workshop) -> Iterator[subprocess.Popen[bytes]]:
    with worker_process(workshop, VICTIM) as process:
        yield process


@contextmanager
def held_by_victim(workshop: Workshop, job_id: str) -> Iterator[None]:
    workshop.wake(job_id)
    workshop.wait_for_steps(job_id)
    assert workshop.job(job_id).claimed_by == VICTIM
    yield


def assert_succeeded_once(workshop: Workshop, job_id: str) -> None:
    job = workshop.wait_for_end(job_id)
    assert job.status == JobStatus.SUCCEEDED, job.error
    messages = workshop.messages(job_id)
    assert messages.count(COMPLETED) == 1
    assert messages[-1] == COMPLETED


def test_job_whose_message_comes_three_times_runs_once(
    workshop: Workshop, victim: subprocess.Popen[bytes]
) -> None:
    job_id = workshop.submit()
    for _ in range(3):
        workshop.wake(job_id)
    after = workshop.submit()
    workshop.wake(after)
    for ended in (job_id, after):
        assert_succeeded_once(workshop, ended)
        assert workshop.job(ended).attempts == 1


def test_lost_message_is_sent_again(workshop: Workshop, victim: subprocess.Popen[bytes]) -> None:
    job_id = workshop.submit()  # and nobody wakes a worker for it
    with workshop.database.writing() as session:
        # instead of a wait of 15 s
        outbox.enqueue(session, Work(JOB, job_id), send_after_seconds=0)
    assert_succeeded_once(workshop, job_id)


def test_cancelled_run_is_killed_and_its_worker_goes_on(
    workshop: Workshop, victim: subprocess.Popen[bytes]
) -> None:
    job_id = workshop.submit(epochs=ENDLESS_EPOCHS)
    with held_by_victim(workshop, job_id):
        child = training_child(victim.pid)
        workshop.cancel(job_id)
    # The promise is 5 s on an idle machine; a child that trained on to its end would need minutes.
    wait_until(lambda: not is_alive(child), "the child is killed", seconds=40)
    last = workshop.events(job_id)[-1]
    assert (last.message, workshop.job(job_id).status) == ("The job was cancelled.", "cancelled")
    following = workshop.submit()
    workshop.wake(following)
    assert_succeeded_once(workshop, following)
    assert workshop.events(job_id)[-1].sequence == last.sequence


def test_killed_child_is_replaced(workshop: Workshop, victim: subprocess.Popen[bytes]) -> None:
    job_id = workshop.submit(epochs=4)
    with held_by_victim(workshop, job_id):
        training_child(victim.pid).kill()
    assert_succeeded_once(workshop, job_id)
    job = workshop.job(job_id)
    assert job.attempts == 2
    assert any("was killed by SIGKILL" in message for message in workshop.messages(job_id))


def test_paused_run_makes_room_and_goes_on_where_it_stopped(
    workshop: Workshop, victim: subprocess.Popen[bytes]
) -> None:
    job_id = workshop.submit(epochs=8)
    with held_by_victim(workshop, job_id):
        workshop.pause(job_id)
    wait_until(lambda: workshop.job(job_id).status == JobStatus.PAUSED, "the job is paused")
    job = workshop.job(job_id)
    (state,) = states_of(job)
    assert (job.step, job.attempts, job.claimed_by) == (state.step, 0, None)
    following = workshop.submit()
    workshop.wake(following)
    assert_succeeded_once(workshop, following)
    assert workshop.job(job_id).status == JobStatus.PAUSED

    workshop.resume(job_id)
    workshop.wake(job_id)
    assert_succeeded_once(workshop, job_id)
    assert f"Resumed from step {state.step}." in workshop.messages(job_id)
    told = [e.data["step"] for e in workshop.events(job_id) if e.type == "metrics" and e.data]
    assert told == list(range(1, (job.total_steps or 0) + 1))


def test_frozen_worker_with_a_pause_to_heed_loses_its_job_which_is_then_paused(
    workshop: Workshop, victim: subprocess.Popen[bytes]
) -> None:
    job_id = workshop.submit(epochs=ENDLESS_EPOCHS)
    with held_by_victim(workshop, job_id):
        child = training_child(victim.pid)
        freeze(workshop, victim)
    child.suspend()  # so that it cannot save a state
    workshop.pause(job_id)
    wait_until(lambda: workshop.job(job_id).claimed_by is None, "the lease expires")
    assert workshop.job(job_id).status == JobStatus.PAUSED
    messages = workshop.messages(job_id)
    assert "The worker was lost. The job is paused after step 0." in messages
    child.resume()
    victim.send_signal(signal.SIGCONT)
    wait_until(lambda: not is_alive(child), "the child is gone")
    wait_until(lambda: not (workshop.folder / "work" / job_id / "1").exists(), "it has given up")
    assert (workshop.job(job_id).status, workshop.messages(job_id)) == ("paused", messages)
    assert workshop.blobs(f"resume/{job_id}") == set()


def test_frozen_worker_finds_its_job_taken_when_it_wakes(
    workshop: Workshop, victim: subprocess.Popen[bytes]
) -> None:
    job_id = workshop.submit(epochs=4)
    with held_by_victim(workshop, job_id):
        child = training_child(victim.pid)
        freeze(workshop, victim)
    child.suspend()  # so that it cannot be over before its worker wakes
    wait_until(lambda: workshop.job(job_id).claimed_by is None, "the lease expires")
    with worker_here(workshop):
        assert_succeeded_once(workshop, job_id)
    events, bundles = workshop.messages(job_id), workshop.blobs("bundles")
    child.resume()
    victim.send_signal(signal.SIGCONT)
    wait_until(lambda: not is_alive(child), "the child is gone")
    wait_until(lambda: not (workshop.folder / "work" / job_id / "1").exists(), "it has given up")
    assert workshop.messages(job_id) == events
    assert workshop.blobs("bundles") == bundles
    assert not any(bundle.startswith(f"bundles/{job_id}/1/") for bundle in bundles)


def test_killed_worker_takes_its_child_along_and_its_job_is_rescued(
    workshop: Workshop, victim: subprocess.Popen[bytes]
) -> None:
    """The last test of this file: it ends the victim. What was saved before is not lost."""
    job_id = workshop.submit(epochs=8)
    with held_by_victim(workshop, job_id):
        workshop.pause(job_id)
    wait_until(lambda: workshop.job(job_id).status == JobStatus.PAUSED, "the job is paused")
    (state,) = states_of(workshop.job(job_id))
    workshop.resume(job_id)
    workshop.wake(job_id)
    wait_until(lambda: workshop.job(job_id).step > state.step, "the job trains again")
    with held_by_victim(workshop, job_id):
        family = psutil.Process(victim.pid).children(recursive=True)
        os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    wait_until(lambda: not any(map(is_alive, family)), "nothing of the worker is left")
    wait_until(lambda: workshop.job(job_id).claimed_by is None, "the lease expires")
    with worker_here(workshop):
        assert_succeeded_once(workshop, job_id)
    lost = f"The worker was lost. The job will resume from step {state.step}."
    assert lost in workshop.messages(job_id)
    finals = [e for e in workshop.messages(job_id) if e == COMPLETED]
    assert len(finals) == 1 and workshop.job(job_id).status in FINAL
