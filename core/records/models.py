"""Tuned models and checkpoints: what can get requests besides the bases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound
from core.records.exports import forget_exports, is_being_exported
from core.records.ids import checkpoint_model_id, new_id
from core.records.owned import find_owned, get_owned, missing, owned_by
from core.records.pages import Page, keyset_page
from core.records.speed_tests import forget_speed_tests
from core.records.tables import Checkpoint, Job, TunedModel
from core.records.verdicts import forget_verdict
from core.spec.bundle import BundleRef
from core.spec.ids import CheckpointId, JobId, ModelId, ProjectId
from core.spec.job import JobSpec
from core.spec.parity import Parity, ParityReference
from core.spec.serving import ADAPTER_FORM, ServingSpec
from core.spec.tuned import TunedSpec
from core.spec.workspace import KEPT_CHECKPOINTS

DUE_AT_ONCE = 0.0
"""`parity_due_at` of a model that is checked at its next request."""


@dataclass(frozen=True)
class StoredBundle:
    """A bundle archive in storage."""

    key: str
    sha256: str


def add_checkpoint(
    session: Session,
    job: Job,
    model_id: ModelId,
    step: int,
    metrics: dict[str, Any],
    bundle: StoredBundle,
    *,
    best_step: int | None = None,
    reference: ParityReference | None = None,
) -> Sequence[str]:
    """Record a checkpoint and its model, in place of an earlier one of the same step.

    With a `reference`, the model is checked at its first request.

    The newest checkpoints and that of `best_step` are kept. A checkpoint that an unfinished job is
    trained from, or that is being exported, is also kept, and then a second one of its step is
    dropped. Returns the storage
    keys of bundles that no row names any more.
    """
    servable = checkpoint_model_id(model_id, step)
    earlier = find_checkpoint(session, job.id, step)  # an older version may have named it otherwise
    before = None
    if earlier is not None:
        before = find_owned(session, TunedModel, job.project_id, earlier.model_id, lock="write")
    if before is not None and _is_in_use(session, before):
        return [bundle.key] if bundle.key != before.bundle_key else []
    dropped = _drop_checkpoints(
        session,
        job.id,
        keep=KEPT_CHECKPOINTS - 1,
        best_step=best_step,
        replacing_step=step,
        keeping_key=bundle.key,
    )
    session.add(
        Checkpoint(
            id=CheckpointId(new_id("ftckpt")),
            project_id=job.project_id,
            job_id=job.id,
            step=step,
            metrics=metrics,
            model_id=servable,
        )
    )
    model = _tuned_model(job, servable, bundle, checkpoint_step=step)
    _schedule_check(model, reference)
    session.add(model)
    session.flush()
    return dropped


def add_final_model(
    session: Session,
    job: Job,
    model_id: ModelId,
    bundle: StoredBundle,
    parity: Parity | None = None,
    reference: ParityReference | None = None,
) -> None:
    """Record the final model of a job, and the result of its parity check.

    An unchecked model is checked with the `reference` at its first request.
    """
    model = _tuned_model(job, model_id, bundle, checkpoint_step=None)
    set_parity(model, parity, reference)
    session.add(model)
    session.flush()


def set_parity(model: TunedModel, parity: Parity | None, reference: ParityReference | None) -> None:
    """Set the result of a new model's check. Its rows are kept for exports.

    An unchecked model is checked with the `reference` at its first request.
    """
    model.parity = None if parity is None else parity.model_dump(mode="json")
    if parity is None or parity.status == "unchecked":
        _schedule_check(model, reference)
    elif reference is not None:
        model.parity_reference = reference.rows_only().model_dump(mode="json")


def tuned_spec(session: Session, model: TunedModel) -> TunedSpec:
    """Return what a model is: as its job says, or its own row."""
    if model.job_id is None:
        return TunedSpec.model_validate(model.spec)
    job = get_owned(session, Job, model.project_id, model.job_id)
    return TunedSpec.of(JobSpec.model_validate(job.spec))


def list_checkpoints(
    session: Session, job_id: JobId, *, after: str | None, limit: int
) -> Page[Checkpoint]:
    """Return the checkpoints of a job, newest first. NotFound if `after` is not one of them."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id)
    position = None
    if after is not None:
        anchor = session.scalars(query.where(Checkpoint.id == after)).one_or_none()
        if anchor is None:
            raise NotFound(f"No checkpoint {after!r} to list after.", param="after")
        position = (anchor.step,)
    return keyset_page(session, query, [Checkpoint.step], after=position, limit=limit)


def find_checkpoint(session: Session, job_id: JobId, step: int) -> Checkpoint | None:
    """Return the checkpoint of a step; None if it was not kept."""
    return session.scalars(
        select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.step == step)
    ).one_or_none()


def checkpoint_models(session: Session, job_id: JobId) -> list[tuple[int, TunedModel]]:
    """Return the kept checkpoints of a job as (step, model), the first step first."""
    query = (
        select(TunedModel)
        .where(TunedModel.job_id == job_id, TunedModel.checkpoint_step.is_not(None))
        .order_by(TunedModel.checkpoint_step)
    )
    return [(model.checkpoint_step or 0, model) for model in session.scalars(query)]


def pin_model(
    session: Session, project_id: ProjectId, model_id: ModelId, bundle: BundleRef
) -> None:
    """Prevent the deletion of the model with this bundle until the transaction ends.

    For a transaction that creates work on the model: a job that trains it further, a speed test.
    NotFound, with the field, if the model was deleted before.
    """
    model = get_owned(session, TunedModel, project_id, model_id, lock="read")
    if model.bundle_key != bundle.key:
        raise missing(TunedModel, model_id)


def list_models(session: Session, project_id: ProjectId) -> Sequence[TunedModel]:
    """Return all tuned models of the project, those of checkpoints included, newest first."""
    return session.scalars(
        select(TunedModel)
        .where(owned_by(TunedModel, project_id))
        .order_by(TunedModel.created_at.desc(), TunedModel.id)
    ).all()


def set_serving(
    session: Session, project_id: ProjectId, model_id: ModelId, serving: ServingSpec
) -> TunedModel:
    """Set the serving form of the model and return it; NotFound if it was deleted."""
    model = get_owned(session, TunedModel, project_id, model_id, lock="write")
    model.serving = None if serving == ADAPTER_FORM else serving.model_dump(mode="json")
    session.flush()
    return model


def delete_model(
    session: Session, project_id: ProjectId, model_id: ModelId
) -> tuple[TunedModel, Sequence[str]]:
    """Delete the model's row and exports. Return it, and the storage keys that are left over.

    The caller deletes these after the commit. Conflict while a job that has not ended is trained
    from it.
    """
    model = get_owned(session, TunedModel, project_id, model_id)
    if model.job_id is not None:
        # Lock the job's row first, as its worker does, which may be deleting the same model.
        session.execute(select(Job.id).where(Job.id == model.job_id).with_for_update())
    session.execute(select(TunedModel.id).where(TunedModel.id == model_id).with_for_update())
    if (user := job_trained_from(session, model.bundle_key)) is not None:
        raise Conflict(
            f"The model {model_id!r} is trained further by job {user}, which has not ended. Cancel "
            "the job first.",
            param="model",
            code="model_in_use",
        )
    deleted = session.execute(
        delete(TunedModel).where(TunedModel.id == model_id).returning(TunedModel.id)
    ).all()
    if not deleted:
        raise missing(TunedModel, model_id)
    forget_speed_tests(session, project_id, model_id)
    forget_verdict(session, model_id)
    exported = forget_exports(session, project_id, model_id)
    if model.checkpoint_step is not None:
        session.execute(
            delete(Checkpoint).where(
                Checkpoint.job_id == model.job_id, Checkpoint.step == model.checkpoint_step
            )
        )
    return model, [model.bundle_key, *exported]


def job_trained_from(session: Session, bundle_key: str) -> JobId | None:
    """Return a job that has not ended and is trained from this bundle, if any."""
    return session.scalars(
        select(Job.id)
        .where(
            Job.finished_at.is_(None),  # the partial index `ix_jobs_unfinished`
            Job.spec["parent", "key"].as_string() == bundle_key,
        )
        .limit(1)
    ).first()


def _is_in_use(session: Session, model: TunedModel) -> bool:
    """Return whether unfinished work needs the bundle of a checkpoint, which is then kept."""
    return job_trained_from(session, model.bundle_key) is not None or is_being_exported(
        session, model.project_id, model.id
    )


def _schedule_check(model: TunedModel, reference: ParityReference | None) -> None:
    """Schedule a check for the next request, with the rows of `reference`, if it has any."""
    if reference is not None and reference.rows:
        model.parity_reference = reference.model_dump(mode="json")
        model.parity_due_at = DUE_AT_ONCE


def _tuned_model(
    job: Job, model_id: ModelId, bundle: StoredBundle, *, checkpoint_step: int | None
) -> TunedModel:
    return TunedModel(
        id=model_id,
        project_id=job.project_id,
        job_id=job.id,
        base=job.spec["base"],
        bundle_key=bundle.key,
        bundle_sha256=bundle.sha256,
        checkpoint_step=checkpoint_step,
    )


def _drop_checkpoints(
    session: Session,
    job_id: JobId,
    *,
    keep: int,
    best_step: int | None,
    replacing_step: int,
    keeping_key: str,
) -> list[str]:
    """Delete the checkpoint of `replacing_step` and all but the newest `keep` of the others.

    That of `best_step` is kept. One that unfinished work needs is left for later.
    """
    rows = session.scalars(
        select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step.desc())
    ).all()
    others = [row for row in rows if row.step != replacing_step]
    doomed = [row for row in rows if row.step == replacing_step]
    doomed += [row for row in others[keep:] if row.step != best_step]
    keys = []
    for row in doomed:
        model = find_owned(session, TunedModel, row.project_id, row.model_id, lock="write")
        if model is not None:
            if _is_in_use(session, model):
                continue
            keys.append(model.bundle_key)
            forget_speed_tests(session, model.project_id, model.id)
            session.delete(model)
        session.delete(row)
    session.flush()
    return [key for key in keys if key != keeping_key]
