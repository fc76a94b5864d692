"""From a creation request to a job: everything that can be refused before a worker looks."""

import secrets

from sqlalchemy.orm import Session

from api.files.schemas import faults_of
from api.jobs.hyperparameters import Hyperparameters, resolve
from api.jobs.schemas import CreateJob
from core.catalog.bases import Catalog
from core.catalog.describe import describe
from core.errors import InvalidRequest
from core.records.files import get_file
from core.records.jobs import NewJob
from core.records.models import get_model
from core.records.tables import File
from core.spec.dataset import DatasetReport
from core.spec.run import BaseModelSpec, JobSpec
from core.spec.training import TrainingSpec


def new_job(session: Session, catalog: Catalog, project: str, body: CreateJob) -> NewJob:
    """Return the job that `body` asks for. InvalidRequest or NotFound name the field at fault."""
    hyperparameters = _hyperparameters(body)
    base = _base(session, catalog, project, body.model)
    training_file = usable_file(session, project, body.training_file, "training_file")
    if body.validation_file is not None:
        usable_file(session, project, body.validation_file, "validation_file")
    rows = DatasetReport.model_validate(training_file.report).rows
    training = _fitted(resolve(hyperparameters, body.training, rows=rows), base)
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    return NewJob(
        project_id=project,
        requested_model=body.model,
        suffix=body.suffix,
        training_file=body.training_file,
        validation_file=body.validation_file,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": hyperparameters.model_dump(mode="json")},
        },
        spec=JobSpec(base=base, strategy=body.strategy, training=training, seed=seed),
        metadata=body.metadata,
    )


def usable_file(session: Session, project: str, file_id: str, param: str) -> File:
    """Return a file that can be trained on; InvalidRequest says at which line it cannot."""
    file = get_file(session, project, file_id, param=param)
    if file.purpose != "fine-tune":
        raise InvalidRequest(
            f"File {file_id} has purpose {file.purpose!r}; upload a dataset as 'fine-tune'.",
            param=param,
            code="invalid_file_purpose",
        )
    if (faults := faults_of(file)) is not None:
        raise InvalidRequest(
            f"File {file_id} cannot be used: {faults}.", param=param, code=f"invalid_{param}"
        )
    return file


def _hyperparameters(body: CreateJob) -> Hyperparameters:
    """Those of `method`, or those of the older field beside it."""
    if body.integrations:
        raise InvalidRequest(
            "Integrations are not offered; leave them out.",
            param="integrations",
            code="unsupported_parameter",
        )
    if body.method is not None and body.method.type != "supervised":
        raise InvalidRequest(
            f"The method {body.method.type!r} is not offered yet; use 'supervised'.",
            param="method.type",
            code="unsupported_method",
        )
    if body.method is None or body.method.supervised is None:
        return body.hyperparameters or Hyperparameters()
    ours = body.method.supervised.hyperparameters
    if body.hyperparameters not in (None, ours):
        raise InvalidRequest(
            "hyperparameters and method.supervised.hyperparameters say different things; use "
            "the latter.",
            param="hyperparameters",
            code="contradictory_parameters",
        )
    return ours


def _base(session: Session, catalog: Catalog, project: str, name: str) -> BaseModelSpec:
    if name.startswith("ft:"):
        get_model(session, project, name)
        raise InvalidRequest(
            "Training a tuned model further is not offered yet; name its base model.",
            param="model",
            code="unsupported_model",
        )
    return catalog.resolve(name)


def _fitted(training: TrainingSpec, base: BaseModelSpec) -> TrainingSpec:
    """Return `training` within the base's context; nothing is known of one not yet downloaded."""
    facts = describe(base)
    if facts is None or training.max_length <= facts.context_length:
        return training
    if "max_length" not in training.model_fields_set:
        return training.model_copy(update={"max_length": facts.context_length})
    raise InvalidRequest(
        f"training.max_length is {training.max_length}, but the context of {base.id} holds "
        f"{facts.context_length} tokens.",
        param="training.max_length",
        code="invalid_value",
    )
