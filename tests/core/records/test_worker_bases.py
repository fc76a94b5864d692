"""Which bases workers have, and which jobs they may therefore claim."""

from collections.abc import Callable

from core.records import base_downloads, worker_bases, workers
from core.records.claims import claim_next
from core.records.database import Database
from core.records.tables import Job
from core.spec.base_files import BaseFiles, BaseSource, BaseState
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.tasks.kinds import Queue

HUB = BaseModelSpec(id="acme/small", source="acme/small")
PINNED = BaseModelSpec(id="acme/pinned", source="acme/small", revision="v2")

MakeJob = Callable[..., str]


def report(
    database: Database, worker_id: str, queue: Queue = Queue.DEVICE, **states: BaseState
) -> None:
    keys = {"hub": BaseSource.of(HUB), "pinned": BaseSource.of(PINNED)}
    found = {keys[name]: BaseFiles(state=state) for name, state in states.items()}
    with database.writing() as session:
        worker_bases.report_bases(session, worker_id, found)
        workers.worker_seen(session, worker_id, "cpu", queue)


def claimed_by(database: Database, worker_id: str) -> str | None:
    with database.writing() as session:
        claim = claim_next(session, worker_id, 30)
    return None if claim is None else claim.job_id


def job_on(make_job: MakeJob, base: BaseModelSpec) -> str:
    return make_job(spec=JobSpec(base=base, seed=1))


def test_worker_skips_jobs_whose_base_it_lacks(database: Database, make_job: MakeJob) -> None:
    on_hub, pinned, other = job_on(make_job, HUB), job_on(make_job, PINNED), make_job()
    report(database, "worker-1", hub="downloadable", pinned="present")
    assert [claimed_by(database, "worker-1") for _ in range(3)] == [pinned, other, None]
    report(database, "worker-2", hub="present")
    assert claimed_by(database, "worker-2") == on_hub


def test_base_that_nobody_looks_for_is_claimed(database: Database, make_job: MakeJob) -> None:
    job_id = job_on(make_job, PINNED)
    report(database, "worker-1", hub="missing")
    assert claimed_by(database, "worker-1") == job_id


def test_bases_are_declared_once(database: Database) -> None:
    quantized = HUB.model_copy(update={"id": "acme/small-nf4", "quantization": "nf4"})
    for _ in range(2):
        with database.writing() as session:
            worker_bases.declare_bases(session, [HUB, quantized, PINNED])
    with database.reading() as session:
        declared = worker_bases.declared_bases(session)
    assert [(each.id, each.files.revision) for each in declared] == [
        ("acme/pinned", "v2"),
        ("acme/small", ""),
    ]
    assert declared[0].spec == PINNED


def test_best_report_of_living_workers_counts(database: Database) -> None:
    report(database, "worker-1", hub="missing")
    report(database, "worker-2", hub="downloadable", queue=Queue.LIGHT)
    with database.writing() as session:
        found = worker_bases.found_bases(session)
        assert found == {BaseSource.of(HUB): BaseFiles(state="downloadable")}
        workers.worker_gone(session, "worker-2")
        assert worker_bases.found_bases(session)[BaseSource.of(HUB)].state == "missing"
        workers.forget_dead_workers(session, after_seconds=-1)
        assert worker_bases.reported_bases(session, "worker-1") == {}


def test_waiting_job_gets_one_download_and_a_claimed_one_none(
    database: Database, make_job: MakeJob, read_job: Callable[[str], Job]
) -> None:
    waiting, claimed = job_on(make_job, HUB), job_on(make_job, PINNED)
    report(database, "worker-1", hub="downloadable", pinned="present")
    assert claimed_by(database, "worker-1") == claimed
    report(database, "worker-1", hub="downloadable", pinned="downloadable")
    for _ in range(2):
        with database.writing() as session:
            base_downloads.settle_waiting_jobs(session)
    with database.reading() as session:
        first = base_downloads.newest_download(session, HUB)
        assert first is not None and first.payload["files"]["source"] == "acme/small"
        assert base_downloads.newest_download(session, PINNED) is None
    assert read_job(waiting).event_count == read_job(claimed).event_count + 1
