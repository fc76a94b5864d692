"""Reads the rows of a distillation that are stored."""

from collections.abc import Iterator
from typing import Any

from core.distillation.candidates import Answered
from core.records.database import Database
from core.records.distillations import rows_from
from core.spec.ids import DistillationId, ProjectId

AT_ONCE = 500
"""Rows that are read in one short transaction."""


def stored_rows(
    database: Database, project: ProjectId, id_: DistillationId, status: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and body of the rows with a status, in the order of the prompts."""
    number = 0
    while True:
        with database.reading() as session:
            rows = rows_from(session, project, id_, number, AT_ONCE, status=status)
            found = [(row.number, row.body) for row in rows]
        if not found:
            return
        yield from found
        number = found[-1][0] + 1


def example_of(
    database: Database, project: ProjectId, id_: DistillationId, *statuses: str
) -> str | None:
    """Return why the first prompt with one of the statuses has it; None if there is no such prompt.

    The first status that a prompt has decides.
    """
    for status in statuses:
        for number, body in stored_rows(database, project, id_, status):
            why = Answered.model_validate(body).why
            if why is not None:
                return f"Prompt {number}, {why.code}: {why.message}"
    return None
