"""A mask audit that somebody asked for is answered by a real child, whatever the file holds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.records import masks
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import MaskAudit
from core.spec.mask import MaskRow
from core.spec.run import BaseModelSpec, JobSpec
from tests.worker.workshop import Workshop
from worker.audit import audit_waiting_masks

TINY = Path(__file__).parents[2] / "core" / "models" / "tiny"
SPEC = JobSpec(base=BaseModelSpec(id="tunesmith/tiny", source=str(TINY)), seed=1)
CHAT = {
    "messages": [
        {"role": "user", "content": "What is two and two?"},
        {"role": "assistant", "content": "Four."},
    ]
}


@pytest.fixture
def ask(workshop: Workshop) -> Callable[[str], str]:
    """Ask for an audit of a file with this content; return the audit's id."""

    def ask(content: str) -> str:
        file_id = workshop.upload(content)
        with workshop.database.writing() as session:
            return masks.request_audit(session, DEFAULT_PROJECT, file_id, SPEC)

    return ask


def answered(workshop: Workshop, audit_id: str) -> MaskAudit:
    audit_waiting_masks(workshop.settings(), workshop.database, workshop.store)
    with workshop.database.reading() as session:
        audit = get_owned(session, MaskAudit, DEFAULT_PROJECT, audit_id)
        session.expunge(audit)
    assert audit.finished_at is not None
    return audit


def test_audit_is_answered_token_by_token(workshop: Workshop, ask: Callable[[str], str]) -> None:
    audit = answered(workshop, ask(json.dumps(CHAT) + "\n"))
    assert audit.error is None
    (row,) = (MaskRow.model_validate(row) for row in audit.rows or [])
    trained = "".join(token.text for token in row.parts[0].tokens if token.trained)
    assert trained.startswith("Four.")
    assert list(workshop.settings().work_folder.glob("mask-*")) == []


def test_audit_of_a_faulty_file_names_the_line(
    workshop: Workshop, ask: Callable[[str], str]
) -> None:
    audit = answered(workshop, ask(json.dumps(CHAT) + "\n{}\n"))
    assert audit.error is not None
    assert audit.error["code"] == "invalid_training_file"
    assert "Line 2" in audit.error["message"]
