"""Speed tests, which are tasks about a model. A result is valid only for its exact target."""

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session, undefer

from core.records.owned import owned_by
from core.records.tables import Project, Task
from core.records.tasks import create_task, find_task, forget_tasks
from core.spec.ids import ModelId, ProjectId, TaskId
from core.spec.speed import SpeedTarget

SPEED_TEST = "speed_test"
"""The kind of task."""


def find_speed_test(
    session: Session, project_id: ProjectId, model_id: ModelId, target: SpeedTarget
) -> Task | None:
    """Return the newest result of the model; None if it is for another target."""
    test = _newest_result(session, project_id, model_id)
    if test is None or not _measures(test, target):
        return None
    return test


def request_speed_test(
    session: Session, project_id: ProjectId, model_id: ModelId, target: SpeedTarget
) -> Task:
    """Return the test of this target that waits or runs; if there is none, a new one.

    A new test replaces all older ones except the newest result.
    """
    # Lock the project's row, so that concurrent requests share one test.
    session.get(Project, project_id, with_for_update={"key_share": True})
    unfinished = session.scalars(
        select(Task).where(_of(project_id, model_id), Task.finished_at.is_(None))
    )
    for test in unfinished:
        if _measures(test, target):
            return test
    newest = _newest_result(session, project_id, model_id)
    keeping = () if newest is None else (Task.id != newest.id,)
    forget_tasks(session, _of(project_id, model_id), Task.finished_at.is_not(None), *keeping)
    return create_task(session, project_id, SPEED_TEST, subject=model_id, payload=target)


def get_speed_test(session: Session, project_id: ProjectId, test_id: TaskId) -> Task | None:
    """Return a test with its result; None if its model was deleted."""
    return find_task(session, project_id, SPEED_TEST, test_id)


def forget_speed_tests(session: Session, project_id: ProjectId, model_id: ModelId) -> None:
    """Delete the tests of a model, including a running one."""
    forget_tasks(session, _of(project_id, model_id))


def _newest_result(session: Session, project_id: ProjectId, model_id: ModelId) -> Task | None:
    return session.scalars(
        select(Task)
        .where(_of(project_id, model_id), Task.finished_at.is_not(None), Task.error.is_(None))
        .order_by(Task.finished_at.desc(), Task.id)
        .limit(1)
        .options(undefer(Task.result))
    ).first()


def _measures(test: Task, target: SpeedTarget) -> bool:
    return SpeedTarget.model_validate(test.payload) == target


def _of(project_id: ProjectId, model_id: ModelId) -> ColumnElement[bool]:
    return and_(owned_by(Task, project_id), Task.kind == SPEED_TEST, Task.subject == model_id)
