"""The parity of tuned models: checks at the first request, and publication by the owner."""

import time
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import select, update
from sqlalchemy.orm import Session, undefer

from core.records.database import database_now
from core.records.events import NewEvent, append_events
from core.records.models import DUE_AT_ONCE
from core.records.owned import get_owned
from core.records.tables import TunedModel
from core.spec.ids import ModelId, ProjectId
from core.spec.parity import Parity, ParityReference


@dataclass(frozen=True)
class UnderCheck:
    """Another caller is checking the model; its verdict is pending."""


def is_to_be_checked(model: TunedModel) -> bool:
    """Return whether the model may need a check now; `begin_check` decides."""
    if model.parity_due_at is None:
        return False
    was_tried = model.parity is not None
    return not was_tried or model.parity_due_at <= time.time()


def is_withheld(model: TunedModel) -> bool:
    """Return whether the model must not answer.

    Its parity failed or it does not meet the requirements of its job, and it is not published.
    """
    failed = has_failed(model) or model.unmet_requirements is not None
    return failed and model.published_at is None


def has_failed(model: TunedModel) -> bool:
    """Return whether the model is not served as it was trained."""
    return model.parity is not None and model.parity["status"] == "failed"


def begin_check(
    session: Session, model_id: ModelId, sha256: str, seconds: float
) -> ParityReference | UnderCheck | None:
    """Reserve the check of a model for `seconds`; return the rows to replay.

    None if there is nothing to check, or if the last attempt was too recent.
    """
    # Read the clock once: another caller's check must not expire between the two queries.
    now = session.scalars(select(database_now())).one()
    taken = session.execute(
        update(TunedModel)
        .where(
            TunedModel.id == model_id,
            TunedModel.bundle_sha256 == sha256,
            TunedModel.parity_due_at <= now,
        )
        .values(parity_due_at=now + seconds)
        .returning(TunedModel.parity_reference)
        .execution_options(synchronize_session=False)
    ).all()
    if taken:
        return ParityReference.model_validate(taken[0][0])
    under_check = session.scalars(
        select(TunedModel.id).where(
            TunedModel.id == model_id,
            TunedModel.parity.is_(None),
            TunedModel.parity_due_at > now,
        )
    ).all()
    return UnderCheck() if under_check else None


def end_check(
    session: Session, model_id: ModelId, sha256: str, parity: Parity | None, retry_seconds: float
) -> None:
    """Store a verdict. Without one, the next request starts a new check.

    An unchecked model can be checked again after `retry_seconds`. Nothing happens if the model was
    deleted or replaced.
    """
    values: dict[str, object] = {"parity_due_at": DUE_AT_ONCE}
    if parity is not None:
        values["parity"] = parity.model_dump(mode="json")
        if parity.status == "unchecked":
            values["parity_due_at"] = database_now() + retry_seconds
        else:
            values |= {"parity_due_at": None} | _rows_only(session, model_id)
    session.execute(
        update(TunedModel)
        .where(TunedModel.id == model_id, TunedModel.bundle_sha256 == sha256)
        .where(TunedModel.parity_due_at.is_not(None))
        .values(values)
        .execution_options(synchronize_session=False)
    )


def _rows_only(session: Session, model_id: ModelId) -> dict[str, object]:
    """Return the column of a checked model's reference, whose rows are kept for exports."""
    query = select(TunedModel.parity_reference).where(TunedModel.id == model_id)
    stored = session.scalars(query).one_or_none()
    if stored is None:
        return {}
    try:
        rows = ParityReference.model_validate(stored).rows_only()
    except ValidationError:  # of another version
        return {"parity_reference": None}
    return {"parity_reference": rows.model_dump(mode="json")}


def publish(session: Session, project_id: ProjectId, model_id: ModelId) -> TunedModel:
    """Let a withheld model answer from now on, and return it; other models do not change.

    NotFound if this project has no model with this id.
    """
    reference = undefer(TunedModel.parity_reference)
    model = get_owned(session, TunedModel, project_id, model_id, lock="write", load=(reference,))
    if is_withheld(model):
        model.published_at = session.scalars(select(database_now())).one()
        lack = "is not served as it was trained"
        if not has_failed(model):
            lack = "does not meet the requirements of its job"
        text = f"The owner published {model_id}, which {lack}."
        if model.job_id is not None:
            append_events(session, model.job_id, [NewEvent(text, "warn")])
        session.flush()
    return model
