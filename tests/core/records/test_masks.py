"""Masks of jobs, and those that are asked for before there is a job."""

from collections.abc import Callable

import pytest

from core.errors import NotFound
from core.records import masks, tasks
from core.records.database import Database
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Job
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.mask import MaskPart, MaskRequest, MaskResult, MaskRow, MaskToken

SPEC = JobSpec(base=BaseModelSpec(id="tiny", source="/models/tiny"), seed=1)
PART = MaskPart(
    name="text",
    tokens=(MaskToken(text="a", trained=False), MaskToken(text="b", trained=True)),
    total_tokens=2,
    trained_tokens=1,
)
ROWS = (MaskRow(line=1, parts=(PART,)),)


def test_audit_is_a_task_that_its_project_alone_can_read(
    database: Database, make_file: Callable[..., str]
) -> None:
    file_id = make_file()
    with database.writing() as session:
        audit_id = masks.request_audit(session, DEFAULT_PROJECT, file_id, SPEC).id
        claim = tasks.claim_next(session, "worker-1", [masks.MASK_AUDIT])
        assert claim is not None and MaskRequest.model_validate(claim.payload).spec == SPEC
        tasks.succeed(session, claim, MaskResult(rows=ROWS))
    with database.reading() as session:
        audit = masks.get_audit(session, DEFAULT_PROJECT, audit_id)
        assert MaskResult.model_validate(audit.result).rows == ROWS
        assert audit.subject == file_id
        with pytest.raises(NotFound):
            masks.get_audit(session, "another", audit_id)


def test_audit_of_an_unknown_file_is_refused(database: Database) -> None:
    with pytest.raises(NotFound), database.writing() as session:
        masks.request_audit(session, DEFAULT_PROJECT, "file-none", SPEC)


def test_mask_of_a_job_replaces_that_of_an_earlier_attempt(
    database: Database, make_job: Callable[..., str]
) -> None:
    job_id = make_job()
    for rows in ((), ROWS):
        with database.writing() as session:
            masks.record_job_mask(session, get_owned(session, Job, DEFAULT_PROJECT, job_id), rows)
    with database.reading() as session:
        mask = masks.find_job_mask(session, DEFAULT_PROJECT, job_id)
        assert mask is not None and len(mask.rows) == 1
        assert masks.find_job_mask(session, "another", job_id) is None
