"""Names that we give to things."""

import secrets
import string
from typing import Literal

from core.spec.ids import JobId, ModelId, ProjectId, TaskId
from core.tasks.kinds import KINDS

_ALPHABET = string.ascii_letters + string.digits

Prefix = Literal[
    "file", "ftjob", "ftckpt", "call", "chatcmpl", "cmpl", "clsf", "req", "worker", "speed"
]


def new_id(prefix: Prefix) -> str:
    """A fresh random id: the prefix and 24 letters or digits (142 bits)."""
    return _random_id(prefix)


def new_task_id(kind: str) -> TaskId:
    """The same for a task; the prefix is that of its kind."""
    return TaskId(_random_id(KINDS[kind].id_prefix))


def _random_id(prefix: str) -> str:
    return f"{prefix}-" + "".join(secrets.choice(_ALPHABET) for _ in range(24))


def tuned_model_id(
    base_id: str, project_id: ProjectId, suffix: str | None, job_id: JobId
) -> ModelId:
    """`ft:<base>:<project>:<suffix>:<id>`; the id is the start of the job's, so it is stable."""
    start = job_id.removeprefix("ftjob-")[:8]
    return ModelId(f"ft:{base_id}:{project_id}:{suffix or ''}:{start}")


def checkpoint_model_id(model_id: ModelId, step: int) -> ModelId:
    """`ft:…:ckpt-step-<n>`, the servable model of one checkpoint."""
    return ModelId(f"{model_id}:ckpt-step-{step}")
