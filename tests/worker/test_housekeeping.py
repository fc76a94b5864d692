"""What housekeeping mends, on its own."""

import time

import pytest
from sqlalchemy import select, update

from core.errors import Unavailable
from core.jobs.broker import Broker
from core.records import engines, outbox, tasks, workers
from core.records.tables import File, Job, RegisteredEngine
from core.spec.engine_protocol import EngineReport
from core.tasks.kinds import JOB, Queue, Work
from tests.worker.nap import nap_kind
from tests.worker.naps import Naps
from tests.worker.workshop import Workshop
from worker import housekeeping


class DeafBroker(Broker):
    def wake(self, work: Work) -> None:
        raise Unavailable("The broker is unavailable.")


def test_workspaces_of_dead_claims_go_and_the_living_one_stays(workshop: Workshop) -> None:
    running, over = workshop.submit(), workshop.submit()
    workshop.claim()
    workshop.cancel(over)
    work = workshop.folder / "work"
    for folder in (f"{running}/0", f"{running}/1", f"{over}/1", "ftjob-unknown/1"):
        (work / folder).mkdir(parents=True)
    housekeeping.sweep_workspaces(workshop.database, work)
    assert {str(path.relative_to(work)) for path in work.glob("*/*")} == {f"{running}/1"}
    assert not (work / over).exists()


def test_folders_of_dead_attempts_go_and_those_of_living_ones_stay(workshop: Workshop) -> None:
    folder = workshop.folder / "work" / "tasks"
    with nap_kind():
        living, given_back = Naps(workshop).ask(), Naps(workshop).ask()
        with workshop.database.writing() as session:
            for _ in range(2):
                claim = tasks.claim_next(session, "worker-here", ["nap"])
            assert claim is not None and claim.id == given_back
            tasks.release(session, claim)
    for name in (f"{living}.0", f"{living}.1", f"{given_back}.1", "nap-unknown.1", "stray"):
        (folder / name).mkdir(parents=True)
    housekeeping.sweep_workspaces(workshop.database, workshop.folder / "work")
    assert [path.name for path in folder.iterdir()] == [f"{living}.1"]


def test_stray_names_in_the_work_folder_are_passed_over(workshop: Workshop) -> None:
    running = workshop.submit()
    workshop.claim()
    work = workshop.folder / "work"
    (work / running / "0").mkdir(parents=True)
    (work / running / "lost+found").mkdir()
    (work / "ftjob-file").write_text("no folder")
    housekeeping.sweep_workspaces(workshop.database, work)
    left = {path.name for path in work.rglob("*")}
    assert left == {running, "lost+found", "ftjob-file"}


def test_message_stays_due_until_the_broker_takes_it(workshop: Workshop) -> None:
    job_id = workshop.submit()
    with workshop.database.writing() as session:
        outbox.enqueue(session, Work(JOB, job_id), send_after_seconds=0)
    with pytest.raises(Unavailable):
        housekeeping.send_messages(workshop.database, DeafBroker(workshop.broker_url))
    housekeeping.send_messages(workshop.database, Broker(workshop.broker_url))
    with workshop.database.reading() as session:
        assert outbox.due(session) == []
    assert len(list((workshop.folder / "broker" / "messages").glob("*.device.msg"))) == 1


def test_engines_that_ended_without_a_word_are_forgotten(workshop: Workshop) -> None:
    with workshop.database.writing() as session:
        for name in ("old", "new"):
            engines.engine_seen(session, EngineReport(url=f"http://{name}:8001"))
        session.get_one(RegisteredEngine, "http://old:8001").seen_at -= engines.LIVING_SECONDS
    housekeeping.forget_engines(workshop.database)
    with workshop.database.reading() as session:
        assert session.scalars(select(RegisteredEngine.url)).all() == ["http://new:8001"]


def test_workers_that_missed_a_lease_are_forgotten(workshop: Workshop) -> None:
    with workshop.database.writing() as session:
        workers.worker_seen(session, "worker-old", "cpu", Queue.DEVICE)
    time.sleep(0.01)
    with workshop.database.writing() as session:
        workers.worker_seen(session, "worker-new", "cpu", Queue.DEVICE)
        seen = {worker.id: worker.seen_at for worker in workers.living_workers(session, 60)}
        session.get(workers.Worker, "worker-old").seen_at = seen["worker-new"] - 60  # type: ignore[union-attr]
    housekeeping.forget_workers(workshop.database, workshop.settings())
    assert workshop.living_workers() == ["worker-new"]


def expire(workshop: Workshop, *file_ids: str) -> None:
    with workshop.database.writing() as session:
        session.execute(
            update(File).where(File.id.in_(file_ids)).values(expires_at=time.time() - 1)
        )


def test_expired_files_are_deleted_unless_a_job_needs_them(workshop: Workshop) -> None:
    old, young, kept = (workshop.upload("x\n") for _ in range(3))
    job = workshop.submit()
    with workshop.database.reading() as session:
        used = session.get_one(Job, job).training_file
        keys = {file.id: file.blob_key for file in session.scalars(select(File))}
    expire(workshop, old, used)
    with workshop.database.writing() as session:
        session.get_one(File, young).expires_at = time.time() + 3600

    def remaining() -> set[str]:
        housekeeping.delete_expired_files(workshop.database, workshop.store)
        with workshop.database.reading() as session:
            rows = set(session.scalars(select(File.id)))
        blobs = {id_ for id_, key in keys.items() if (workshop.folder / "storage" / key).exists()}
        assert blobs == rows
        return rows

    assert remaining() == {young, kept, used}
    workshop.cancel(job)
    assert remaining() == {young, kept}
