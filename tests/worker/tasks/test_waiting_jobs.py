"""Jobs whose base is not there: they wait for its download, hold nobody up, or fail."""

import pytest

from core.records import base_downloads, worker_bases, workers
from core.records.tables import Job
from core.spec.base_model import BaseModelSpec
from tests.hub import FakeHub
from tests.worker.downloading import BASE, declare, device_worker, failure, request, run_all, submit
from tests.worker.workshop import Workshop
from worker import housekeeping
from worker.context import Worker


def test_job_on_an_absent_base_waits_and_holds_nobody_up(
    worker: Worker, workshop: Workshop, hub: FakeHub
) -> None:
    declare(workshop, BASE)
    waiting = submit(workshop)
    other = workshop.submit()
    device_worker(workshop, "worker-here")
    claim = workshop.claim()
    assert claim.job_id == other, "the older job waits for its base"
    housekeeping.settle_waiting_jobs(workshop.database)
    assert "Waiting for the download of acme/small." in workshop.messages(waiting)
    assert run_all(worker).error is None
    messages = workshop.messages(waiting)
    assert "Downloading acme/small: 100 % of 0.5 MB." in messages
    assert "acme/small is downloaded." in messages
    device_worker(workshop, "worker-here")
    assert workshop.claim().job_id == waiting


def test_job_claimed_before_the_end_of_the_download_is_told_of_the_end(
    worker: Worker, workshop: Workshop, hub: FakeHub
) -> None:
    declare(workshop, BASE)
    told = submit(workshop)
    with workshop.database.writing() as session:
        base_downloads.wait_for_download(session, session.get_one(Job, told))
    named = BASE.model_copy(update={"id": "acme/small-nf4"})
    untold, told_by_its_name = submit(workshop), submit(workshop, named)
    with workshop.database.writing() as session:
        base_downloads.wait_for_download(session, session.get_one(Job, told_by_its_name))
    for _ in range(3):
        workshop.claim("worker-with-files")
    for _ in range(2):  # as if the worker of the first download had died before its task ended
        assert run_all(worker).error is None
        request(workshop)
    end = "acme/small is downloaded."
    jobs = told, told_by_its_name, untold
    assert [workshop.messages(job_id).count(end) for job_id in jobs] == [1, 1, 0]


def test_job_fails_with_its_download(worker: Worker, workshop: Workshop, hub: FakeHub) -> None:
    declare(workshop, BASE)
    hub.is_gated = True
    waiting = submit(workshop)
    device_worker(workshop)
    housekeeping.settle_waiting_jobs(workshop.database)
    run_all(worker)
    housekeeping.settle_waiting_jobs(workshop.database)
    job = workshop.job(waiting)
    assert job.status == "failed" and job.error is not None
    assert (job.error["code"], job.error["param"]) == ("base_download_refused", "model")


def test_job_on_a_missing_folder_fails_at_once(worker: Worker, workshop: Workshop) -> None:
    gone = BaseModelSpec(id="acme/gone", source=str(workshop.folder / "gone"))
    declare(workshop, gone)
    job_id = submit(workshop, gone)
    housekeeping.settle_waiting_jobs(workshop.database)
    assert workshop.job(job_id).status == "validating_files", "no device worker has looked yet"
    device_worker(workshop)
    housekeeping.settle_waiting_jobs(workshop.database)
    job = workshop.job(job_id)
    assert job.status == "failed" and job.error is not None
    assert job.error["code"] == "base_missing"


def test_download_to_another_machine_does_not_leave_the_job_waiting(
    worker: Worker, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(workshop, BASE)
    waiting = submit(workshop)
    run_all_here = worker
    monkeypatch.setenv("HF_HOME", str(workshop.folder / "elsewhere"))
    device_worker(workshop)
    housekeeping.settle_waiting_jobs(workshop.database)
    monkeypatch.setenv("HF_HOME", str(workshop.folder / "hf"))
    assert run_all(run_all_here).error is None
    housekeeping.settle_waiting_jobs(workshop.database)
    assert workshop.job(waiting).status == "validating_files"
    monkeypatch.setattr(base_downloads, "SETTLING_SECONDS", 0.0)
    housekeeping.settle_waiting_jobs(workshop.database)
    job = workshop.job(waiting)
    assert job.error is not None and "share one HF_HOME" in job.error["message"]


def test_forbidden_downloads_make_a_base_missing(
    worker: Worker, workshop: Workshop, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(workshop, BASE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    device_worker(workshop)
    with workshop.database.reading() as session:
        states = worker_bases.found_bases(session)
    assert [files.state for files in states.values()] == ["missing"]
    request(workshop)
    code, message = failure(worker)
    assert code == "base_missing" and "HF_HUB_OFFLINE" in message
    assert hub.requests == []


def test_dead_workers_reports_do_not_count(worker: Worker, workshop: Workshop) -> None:
    declare(workshop, BASE)
    device_worker(workshop)
    with workshop.database.writing() as session:
        assert worker_bases.found_bases(session)
        workers.worker_gone(session, "worker-device")
        assert not worker_bases.found_bases(session)
