"""Mask audits wait for a worker, are taken by one at a time and end in a result or an error."""

from collections.abc import Callable

import pytest
from sqlalchemy import update

from core.errors import NotFound
from core.records import masks
from core.records.database import Database
from core.records.owned import find_owned, get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Job, MaskAudit
from core.spec.mask import MaskPart, MaskRow, MaskToken
from core.spec.run import BaseModelSpec, JobSpec

SPEC = JobSpec(base=BaseModelSpec(id="tiny", source="/models/tiny"), seed=1)
PART = MaskPart(
    name="text",
    tokens=(MaskToken(text="a", trained=False), MaskToken(text="b", trained=True)),
    total_tokens=2,
    trained_tokens=1,
)
ROWS = (MaskRow(line=1, parts=(PART,)),)


@pytest.fixture
def ask(database: Database, make_file: Callable[..., str]) -> Callable[[], str]:
    def request() -> str:
        file_id = make_file()
        with database.writing() as session:
            return masks.request_audit(session, DEFAULT_PROJECT, file_id, SPEC)

    return request


def take(database: Database) -> str | None:
    with database.writing() as session:
        waiting = masks.take_waiting(session)
    return None if waiting is None else waiting.id


def age(database: Database, seconds: float) -> None:
    with database.writing() as session:
        session.execute(
            update(MaskAudit).values(
                created_at=MaskAudit.created_at - seconds, taken_at=MaskAudit.taken_at - seconds
            )
        )


def test_oldest_waits_first_and_is_taken_once(database: Database, ask: Callable[[], str]) -> None:
    first, second = ask(), ask()
    assert [take(database) for _ in range(3)] == [first, second, None]


def test_result_can_be_read_by_its_project_alone(
    database: Database, ask: Callable[[], str]
) -> None:
    audit_id = ask()
    with database.writing() as session:
        masks.finish(session, audit_id=audit_id, rows=ROWS)
    with database.reading() as session:
        audit = get_owned(session, MaskAudit, DEFAULT_PROJECT, audit_id)
        assert [MaskRow.model_validate(row) for row in audit.rows or []] == list(ROWS)
        assert not masks.anyone_waits(session)
        with pytest.raises(NotFound):
            get_owned(session, MaskAudit, "another", audit_id)


def test_audit_of_a_dead_worker_is_taken_again_and_given_up_in_the_end(
    database: Database, ask: Callable[[], str]
) -> None:
    audit_id = ask()
    for _ in range(masks.MAX_ATTEMPTS):
        assert take(database) == audit_id
        assert take(database) is None
        age(database, masks.TAKEN_FOR_SECONDS + 1)
    assert take(database) is None
    with database.writing() as session:
        masks.give_up(session)
    with database.reading() as session:
        audit = get_owned(session, MaskAudit, DEFAULT_PROJECT, audit_id)
        assert audit.error is not None and audit.error["code"] == "worker_lost"


def test_mask_of_a_job_replaces_that_of_an_earlier_attempt_and_stays(
    database: Database, make_job: Callable[..., str]
) -> None:
    job_id = make_job()
    for rows in ((), ROWS):
        with database.writing() as session:
            masks.record_job_mask(session, get_owned(session, Job, DEFAULT_PROJECT, job_id), rows)
    age(database, 2 * masks.KEPT_SECONDS)
    with database.writing() as session:
        masks.give_up(session)
    with database.reading() as session:
        audit = get_owned(session, MaskAudit, DEFAULT_PROJECT, job_id)
        assert len(audit.rows or []) == 1
        assert not masks.anyone_waits(session)


def test_audits_without_a_job_are_forgotten_after_a_day(
    database: Database, ask: Callable[[], str]
) -> None:
    audit_id = ask()
    age(database, masks.KEPT_SECONDS + 1)
    with database.writing() as session:
        masks.give_up(session)
        assert find_owned(session, MaskAudit, DEFAULT_PROJECT, audit_id) is None
