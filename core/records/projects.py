"""Projects own all rows. One exists from the start; others will come with their own API keys."""

from sqlalchemy.orm import Session

from core.records.tables import Project
from core.spec.ids import ProjectId

DEFAULT_PROJECT = ProjectId("default")


def ensure_project(session: Session, project_id: ProjectId = DEFAULT_PROJECT) -> None:
    """Create the project's row if it does not exist."""
    if session.get(Project, project_id) is None:
        session.add(Project(id=project_id))
        session.flush()
