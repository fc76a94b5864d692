"""The ids of rows: random ones, and those of tuned models."""

import secrets
import string
from typing import Literal

from core.spec.ids import JobId, ModelId, ProjectId, TaskId
from core.tasks.kinds import KINDS

_ALPHABET = string.ascii_letters + string.digits

Prefix = Literal[
    "file",
    "ftjob",
    "ftckpt",
    "call",
    "chatcmpl",
    "cmpl",
    "clsf",
    "embd",
    "tok",
    "req",
    "worker",
    "speed",
]


def new_id(prefix: Prefix) -> str:
    """Return a new random id: the prefix and 24 letters or digits (142 bits)."""
    return _random_id(prefix)


def new_task_id(kind: str) -> TaskId:
    """Return a new random id with the prefix of the task's kind."""
    return TaskId(_random_id(KINDS[kind].id_prefix))


def _random_id(prefix: str) -> str:
    return f"{prefix}-" + "".join(secrets.choice(_ALPHABET) for _ in range(24))


def tuned_model_id(
    base_id: str, project_id: ProjectId, suffix: str | None, job_id: JobId
) -> ModelId:
    """Return `ft:<base>:<project>:<suffix>:<id>`, where `<id>` is the start of the job's id."""
    start = job_id.removeprefix("ftjob-")[:8]
    return ModelId(f"ft:{base_id}:{project_id}:{suffix or ''}:{start}")


def checkpoint_model_id(model_id: ModelId, step: int) -> ModelId:
    """Return `ft:…:ckpt-step-<n>`, the id of the model of a checkpoint."""
    return ModelId(f"{model_id}:ckpt-step-{step}")
