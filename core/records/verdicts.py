"""The verdicts on final models, and the requirements that withhold them."""

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from core.records.events import storable
from core.records.owned import find_owned
from core.records.tables import Job, StoredVerdict, TunedModel
from core.spec.ids import ModelId, ProjectId
from core.spec.verdict import Verdict


def add_verdict(session: Session, job: Job, model_id: ModelId, verdict: Verdict) -> None:
    """Store the verdict on a final model, which must have been added before.

    A model that does not meet its requirements is withheld from now on.
    """
    session.add(
        StoredVerdict(
            id=model_id,
            project_id=job.project_id,
            job_id=job.id,
            verdict=verdict.model_dump(mode="json"),
        )
    )
    if (unmet := verdict.unmet) is not None:
        session.execute(
            update(TunedModel)
            .where(TunedModel.id == model_id)
            .values(unmet_requirements=storable(unmet))
        )
    session.flush()


def find_verdict(
    session: Session, project_id: ProjectId, model_id: ModelId
) -> StoredVerdict | None:
    """Return the verdict on a final model; None if it has none, or was deleted."""
    return find_owned(session, StoredVerdict, project_id, model_id)


def forget_verdict(session: Session, model_id: ModelId) -> None:
    """Delete the verdict on a model that is deleted."""
    session.execute(delete(StoredVerdict).where(StoredVerdict.id == model_id))
