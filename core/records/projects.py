"""Projects own every row. One exists from the start; more come with API keys of their own."""

from sqlalchemy.orm import Session

from core.records.tables import Project
from core.spec.ids import ProjectId

DEFAULT_PROJECT = ProjectId("default")


def ensure_project(session: Session, project_id: ProjectId = DEFAULT_PROJECT) -> None:
    """Make the project's row unless it is there."""
    if session.get(Project, project_id) is None:
        session.add(Project(id=project_id))
        session.flush()
