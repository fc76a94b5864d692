"""Between the end of a run and its model: a worker asks an engine, and whatever comes of that."""

import signal
import socket
import time
from collections.abc import Iterator

import pytest

from core.jobs.state import JobStatus
from core.records import claims
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import TunedModel
from core.spec.generation import TextPrompt
from core.spec.parity import Parity, ParityReference, ReplayedRow
from tests.worker.serving import serving
from tests.worker.simulated_child import Simulation
from tests.worker.workshop import (
    BEAT_SECONDS,
    Workshop,
    wait_until,
    worker_here,
    worker_process,
)
from worker.engine.settings import EngineSettings
from worker.parity import replay
from worker.training import attempt as train_module

LEASE_SECONDS = 3 * BEAT_SECONDS

REFERENCE = ParityReference(
    precision="fp32",
    rows=(
        ReplayedRow(
            line=1,
            prompt=TextPrompt(text="a"),
            prompt_ids=(1,),
            answer=(2,),
            logprobs=(None, -1.0),
        ),
    ),
)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    simulation = Simulation(total_steps=3, reference=REFERENCE)
    monkeypatch.setattr(train_module, "launch", simulation.launch)
    return simulation


@pytest.fixture
def silent(workshop: Workshop) -> Iterator[Workshop]:
    """A workshop whose engine takes requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        workshop.engine_at(f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield workshop


@pytest.fixture
def unavailable(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop whose engine is not there; nobody waits long for it."""
    monkeypatch.setattr(replay, "UNAVAILABLE_SECONDS", 1.5)
    monkeypatch.setattr(replay, "PAUSE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    workshop.engine_at(f"http://127.0.0.1:{port}")
    return workshop


def parity_of(workshop: Workshop, job_id: str) -> Parity:
    name = workshop.job(job_id).fine_tuned_model
    assert name is not None
    with workshop.database.reading() as session:
        return Parity.model_validate(get_owned(session, TunedModel, DEFAULT_PROJECT, name).parity)


def is_replaying(workshop: Workshop, job_id: str) -> bool:
    """The bundle is stored before the engine is asked, and the model recorded after."""
    return any(name.endswith("final.zip") for name in workshop.blobs(f"bundles/{job_id}"))


def test_model_is_asked_through_the_engine_and_published_with_the_result(
    workshop: Workshop,
) -> None:
    settings = EngineSettings(
        storage_folder=workshop.folder / "storage",
        cache_folder=workshop.folder / "engine",
        kv_cache_mib=16,
    )
    settings.storage_folder.mkdir(exist_ok=True)
    with serving(settings) as service:
        job_id = workshop.submit()
        with worker_here(workshop):
            workshop.wait_for_steps(job_id)
            workshop.engine_at(str(service.client.base_url))
            job = workshop.wait_for_end(job_id)
    assert (job.status, job.error) == (JobStatus.SUCCEEDED, None)
    parity = parity_of(workshop, job_id)
    assert (parity.status, parity.rows) == ("passed", 8)
    told = workshop.messages(job_id)
    checking = told.index("Checking parity.")
    assert told[checking + 1].startswith(f"Parity passed: 8 rows, {parity.tokens} tokens; ")
    assert told[checking + 2].startswith("Not judged against tunesmith/tiny. No rows are held out")
    assert told[checking + 3].startswith("New fine-tuned model created")


def test_without_an_engine_the_model_is_published_unchecked_at_once(
    workshop: Workshop, children: Simulation
) -> None:
    job_id = workshop.submit()
    with worker_here(workshop):
        job = workshop.wait_for_end(job_id)
    assert job.status == JobStatus.SUCCEEDED
    parity = parity_of(workshop, job_id)
    assert (parity.status, parity.reason) == ("unchecked", "no engine is registered")
    (event,) = [each for each in workshop.events(job_id) if each.message.startswith("Parity")]
    assert event.level == "warn"
    assert event.message.endswith(": no engine is registered")


def test_engine_that_stays_away_is_asked_again_and_then_left(
    unavailable: Workshop, children: Simulation
) -> None:
    job_id = unavailable.submit()
    started = time.monotonic()
    with worker_here(unavailable):
        job = unavailable.wait_for_end(job_id)
    assert job.status == JobStatus.SUCCEEDED
    assert time.monotonic() - started > 1
    parity = parity_of(unavailable, job_id)
    assert parity.status == "unchecked"
    assert parity.reason is not None and parity.reason.startswith("the engine did not answer")


def test_pause_that_comes_during_the_check_comes_too_late(
    unavailable: Workshop, children: Simulation
) -> None:
    job_id = unavailable.submit()
    with worker_here(unavailable):
        wait_until(lambda: is_replaying(unavailable, job_id), "the engine is asked")
        unavailable.pause(job_id)
        job = unavailable.wait_for_end(job_id)
    assert job.status == JobStatus.SUCCEEDED


def test_cancel_ends_the_check_and_leaves_no_bundle(silent: Workshop, children: Simulation) -> None:
    job_id = silent.submit()
    with worker_here(silent):
        wait_until(lambda: is_replaying(silent, job_id), "the engine is asked")
        silent.cancel(job_id)
        wait_until(lambda: not is_replaying(silent, job_id), "the bundle is gone")
    assert silent.job(job_id).status == JobStatus.CANCELLED
    assert silent.job(job_id).fine_tuned_model is None


def test_claim_lives_through_a_long_check_and_stopping_gives_the_job_back(
    silent: Workshop, children: Simulation
) -> None:
    job_id = silent.submit()
    with worker_here(silent):
        wait_until(lambda: is_replaying(silent, job_id), "the engine is asked")
        time.sleep(2 * LEASE_SECONDS)
        with silent.database.writing() as session:
            assert claims.rescue_expired(session) == []
        assert silent.job(job_id).claimed_by == "worker-here"
    job = silent.job(job_id)
    assert (job.status, job.claimed_by, job.attempts) == (JobStatus.QUEUED, None, 0)
    assert not is_replaying(silent, job_id)

    silent.forget_engines()
    with worker_here(silent):
        assert silent.wait_for_end(job_id).status == JobStatus.SUCCEEDED


def test_worker_killed_during_the_check_is_replaced(silent: Workshop) -> None:
    job_id = silent.submit()
    with worker_process(silent, "worker-killed") as process:
        silent.wake(job_id)
        wait_until(lambda: is_replaying(silent, job_id), "the engine is asked")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with silent.database.writing() as session:
        assert claims.rescue_expired(session, worker_id="worker-killed") == [job_id]
    assert silent.job(job_id).status == JobStatus.QUEUED
    silent.forget_engines()
    with worker_here(silent):
        job = silent.wait_for_end(job_id)
    assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 2)
    assert silent.messages(job_id).count("The job has successfully completed") == 1
