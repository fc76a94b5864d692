"""Evals: creation, lists, changes, deletion."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.records.eval_runs import forget_run_tasks
from core.records.ids import new_eval_id
from core.records.owned import get_owned, owned_by
from core.records.pages import Order, Page, page
from core.records.tables import Eval, EvalRun
from core.spec.ids import EvalId, ProjectId

SortedBy = Literal["created_at", "updated_at"]


@dataclass(frozen=True)
class NewEval:
    """What the owner asks for; without a name, the id is the name."""

    project_id: ProjectId
    name: str | None
    user_metadata: dict[str, str] | None
    data_source_config: dict[str, Any]
    criteria: list[dict[str, Any]]


def create_eval(session: Session, new: NewEval) -> Eval:
    now = time.time()
    id_ = new_eval_id()
    eval_ = Eval(id=id_, created_at=now, updated_at=now, **vars(new) | {"name": new.name or id_})
    session.add(eval_)
    session.flush()
    return eval_


def list_evals(
    session: Session,
    project_id: ProjectId,
    *,
    after: str | None,
    limit: int,
    order: Order,
    sorted_by: SortedBy,
) -> Page[Eval]:
    return page(
        session,
        select(Eval),
        Eval,
        project_id,
        after=after,
        limit=limit,
        order=order,
        time=Eval.updated_at if sorted_by == "updated_at" else None,
    )


def update_eval(
    session: Session, project_id: ProjectId, eval_id: EvalId, changes: dict[str, Any]
) -> Eval:
    """Set `name` or `user_metadata`."""
    eval_ = get_owned(session, Eval, project_id, eval_id, lock="write")
    for column, value in changes.items():
        setattr(eval_, column, value)
    eval_.updated_at = time.time()
    session.flush()
    return eval_


def delete_eval(session: Session, project_id: ProjectId, eval_id: EvalId) -> Sequence[str]:
    """Delete an eval with its runs, which stop; return the blobs to delete after the commit."""
    get_owned(session, Eval, project_id, eval_id)
    of_the_eval = (owned_by(EvalRun, project_id), EvalRun.eval_id == eval_id)
    forget_run_tasks(session, project_id, session.scalars(select(EvalRun.id).where(*of_the_eval)))
    eval_ = get_owned(session, Eval, project_id, eval_id, lock="write")
    keys = session.scalars(
        select(EvalRun.blob_key).where(*of_the_eval, EvalRun.file_id.is_(None))
    ).all()
    session.delete(eval_)
    session.flush()
    return keys
