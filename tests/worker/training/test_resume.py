"""Resume states between the workspaces of a job and storage, on both databases."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.artifacts.archive import pack_state
from core.errors import StaleClaim
from core.jobs.state import JobStatus
from core.records import claims
from core.records.claims import MAX_ATTEMPTS
from core.records.resume_states import states_of
from core.spec.events import ResumeStateSaved
from core.spec.run_request import archive_of
from core.spec.workspace import Workspace
from core.storage.blobs import Blob
from tests.worker.workshop import Workshop, make_workshop
from worker import housekeeping
from worker.training.resume import ResumeStates


@pytest.fixture
def workshop(tmp_path: Path, database_url: str) -> Iterator[Workshop]:
    workshop = make_workshop(tmp_path, database_url)
    yield workshop
    workshop.database.close()


@pytest.fixture
def job_id(workshop: Workshop) -> str:
    return workshop.submit()


def attempt(workshop: Workshop) -> ResumeStates:
    return ResumeStates(workshop.database, workshop.store, workshop.claim())


@pytest.fixture
def save(tmp_path: Path) -> Callable[[int], ResumeStateSaved]:
    """`save(step)` is what a child does: a folder with a state, packed, and its event."""

    def save(step: int) -> ResumeStateSaved:
        folder = tmp_path / "child" / f"step-{step}"
        (folder / "optimizer").mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text("{}")
        (folder / "optimizer" / "step.json").write_text(str(step))
        pack_state(folder, archive_of(folder))
        return ResumeStateSaved(step=step, folder=folder)

    return save


def fetched(workshop: Workshop, states: ResumeStates) -> dict[str, str]:
    """What a fresh workspace holds after `fetch`: the step that each state in it says."""
    workspace = Workspace(folder=workshop.folder / os.urandom(4).hex())
    workspace.folder.mkdir()
    states.fetch(workspace)
    assert list(workspace.folder.rglob("*.zip")) == []
    return {
        path.parent.parent.name: path.read_text()
        for path in workspace.folder.glob("resume/*/optimizer/step.json")
    }


def rescue(workshop: Workshop) -> None:
    with workshop.database.writing() as session:
        assert len(claims.rescue_expired(session, worker_id="worker-here")) == 1


def test_first_attempt_has_nothing_to_go_on_from(workshop: Workshop, job_id: str) -> None:
    before = workshop.messages(job_id)
    assert fetched(workshop, attempt(workshop)) == {}
    assert workshop.messages(job_id) == before


def test_newest_two_states_are_kept(
    workshop: Workshop, job_id: str, save: Callable[[int], ResumeStateSaved]
) -> None:
    states = attempt(workshop)
    for step in (1, 2, 2, 3):
        event = save(step)
        states.keep(event)
        assert not archive_of(event.folder).exists()
    assert [state.step for state in states_of(workshop.job(job_id))] == [3, 2]
    assert workshop.blobs("resume") == {f"resume/{job_id}/1/step-{n}.zip" for n in (2, 3)}


def test_next_attempt_goes_on_from_the_newest_state(
    workshop: Workshop, job_id: str, save: Callable[[int], ResumeStateSaved]
) -> None:
    states = attempt(workshop)
    states.keep(save(4))
    states.keep(save(6))
    rescue(workshop)
    again = attempt(workshop)
    assert fetched(workshop, again) == {"step-6": "6"}
    assert workshop.job(job_id).step == 6
    assert workshop.messages(job_id)[-1] == "The worker was lost. The job will resume from step 6."
    again.keep(save(8))
    assert workshop.blobs("resume") == {
        f"resume/{job_id}/1/step-6.zip",
        f"resume/{job_id}/3/step-8.zip",
    }


def damage(workshop: Workshop, key: str, how: str) -> None:
    workshop.store.delete(key)
    if how == "damaged":
        workshop.store.write(key, [b"PK, but not for long"])


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_unreadable_state_gives_way_to_the_older_one_and_then_to_the_start(
    workshop: Workshop, job_id: str, save: Callable[[int], ResumeStateSaved], how: str
) -> None:
    states = attempt(workshop)
    states.keep(save(4))
    states.keep(save(6))
    damage(workshop, f"resume/{job_id}/1/step-6.zip", how)
    rescue(workshop)
    assert fetched(workshop, attempt(workshop)) == {"step-4": "4"}
    job = workshop.job(job_id)
    assert (job.step, [state.step for state in states_of(job)]) == (4, [4])
    warning = workshop.events(job_id)[-1]
    assert warning.level == "warn"
    assert warning.message.startswith("The state saved after step 6 cannot be used: ")

    damage(workshop, f"resume/{job_id}/1/step-4.zip", how)
    rescue(workshop)
    assert fetched(workshop, attempt(workshop)) == {}
    job = workshop.job(job_id)
    assert (job.step, job.resume_states) == (0, None)
    assert workshop.messages(job_id)[-1] == "No saved state is left; the run starts again."
    assert workshop.blobs("resume") == set()


def test_worker_that_lost_its_job_adds_no_state(
    workshop: Workshop, job_id: str, save: Callable[[int], ResumeStateSaved]
) -> None:
    states = attempt(workshop)
    states.keep(save(1))
    rescue(workshop)
    with pytest.raises(StaleClaim):
        states.keep(save(2))
    assert workshop.blobs("resume") == {f"resume/{job_id}/1/step-1.zip"}
    assert [state.step for state in states_of(workshop.job(job_id))] == [1]


def test_crashes_are_counted_from_the_last_progress(
    workshop: Workshop, job_id: str, save: Callable[[int], ResumeStateSaved]
) -> None:
    """A long job on machines that die often ends; one that dies at the same step fails."""
    for number in range(1, MAX_ATTEMPTS + 2):
        states = attempt(workshop)
        fetched(workshop, states)
        states.keep(save(number))
        assert workshop.job(job_id).attempts == 1
        rescue(workshop)
    for number in range(2, MAX_ATTEMPTS + 1):
        states = attempt(workshop)
        fetched(workshop, states)
        states.keep(save(MAX_ATTEMPTS + 1))  # the same step once more
        assert workshop.job(job_id).attempts == number
        with workshop.database.writing() as session:
            claims.rescue_expired(session, worker_id="worker-here")
    assert workshop.job(job_id).status == JobStatus.FAILED


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_states_of_an_ended_job_are_removed(
    workshop: Workshop, job_id: str, save: Callable[[int], ResumeStateSaved], end: str
) -> None:
    states = attempt(workshop)
    states.keep(save(1))
    housekeeping.delete_resume_states(workshop.database, workshop.store)
    assert len(workshop.blobs("resume")) == 1
    if end == "cancelled":
        workshop.cancel(job_id)
    else:
        workshop.end_badly(job_id)
    housekeeping.delete_resume_states(workshop.database, workshop.store)
    assert workshop.blobs("resume") == set()
    assert workshop.job(job_id).resume_states is None


def test_full_disk_leaves_the_states_as_they_were(
    workshop: Workshop,
    job_id: str,
    save: Callable[[int], ResumeStateSaved],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = attempt(workshop)
    states.keep(save(1))

    def full(key: str, path: Path) -> Blob:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(workshop.store, "write_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        states.keep(save(2))
    assert [state.step for state in states_of(workshop.job(job_id))] == [1]
