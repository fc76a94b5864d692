"""Speed tests: the newest of each model, with what was measured."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.records.ids import new_id
from core.records.owned import owned_by
from core.records.tables import SpeedTest
from core.spec.ids import ModelId, ProjectId, SpeedTestId
from core.spec.speed import SpeedResult, SpeedTarget


def find_speed_test(
    session: Session, project_id: ProjectId, model_id: ModelId, target: SpeedTarget
) -> SpeedTest | None:
    """Return the newest test of the model, None when another target was measured under its name."""
    newest = session.scalars(
        select(SpeedTest)
        .where(owned_by(SpeedTest, project_id), SpeedTest.model_id == model_id)
        .order_by(SpeedTest.created_at.desc(), SpeedTest.id)
        .limit(1)
    ).first()
    if newest is None or SpeedTarget.model_validate(newest.target) != target:
        return None
    return newest


def store_speed_test(
    session: Session,
    project_id: ProjectId,
    model_id: ModelId,
    target: SpeedTarget,
    result: SpeedResult,
) -> SpeedTest:
    """Write a test in place of the model's older ones."""
    forget_speed_tests(session, project_id, model_id)
    test = SpeedTest(
        id=SpeedTestId(new_id("speed")),
        project_id=project_id,
        model_id=model_id,
        target=target.model_dump(mode="json"),
        result=result.model_dump(mode="json"),
    )
    session.add(test)
    session.flush()
    return test


def forget_speed_tests(session: Session, project_id: ProjectId, model_id: ModelId) -> None:
    """Remove the tests of a model."""
    session.execute(
        delete(SpeedTest).where(owned_by(SpeedTest, project_id), SpeedTest.model_id == model_id)
    )
