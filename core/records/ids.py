"""The ids of rows: random ones, and those of tuned models."""

import secrets
import string
from typing import Literal

from core.spec.ids import BatchId, EvalId, EvalItemId, EvalRunId, JobId, ModelId, ProjectId, TaskId
from core.tasks.kinds import KINDS

TUNED_PREFIX = "ft:"
"""The start of the ids of tuned models and checkpoints, which no base has."""

_ALPHABET = string.ascii_letters + string.digits
_LETTERS = 24

ItemPrefix = Literal["resp", "msg", "fc", "fco", "rs", "call"]
"""Of responses and their items, with an underscore as in OpenAI's API, where clients test it."""

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
    "sweep",
    "distill",
]


def new_id(prefix: Prefix) -> str:
    """Return a new random id: the prefix and 24 letters or digits (142 bits)."""
    return _random_id(prefix)


def new_item_id(prefix: ItemPrefix) -> str:
    """Return a new random id of a response or an item: `msg_…`."""
    return _random_id(prefix, "_")


def new_task_id(kind: str) -> TaskId:
    """Return a new random id with the prefix of the task's kind."""
    return TaskId(_random_id(KINDS[kind].id_prefix))


def new_batch_id() -> BatchId:
    """Return a new random id with OpenAI's prefix, by which clients recognize a batch."""
    return BatchId(_random_id("batch", "_"))


def new_line_id() -> str:
    """Return a new random id of an answered line of a batch."""
    return _random_id("batch_req", "_")


def new_eval_id() -> EvalId:
    """Return a new random id with OpenAI's prefix, as for its runs and their items."""
    return EvalId(_random_id("eval", "_"))


def new_eval_run_id() -> EvalRunId:
    return EvalRunId(_random_id("evalrun", "_"))


def new_eval_item_id() -> EvalItemId:
    return EvalItemId(_random_id("outputitem", "_"))


def _random_id(prefix: str, separator: str = "-") -> str:
    number = secrets.randbelow(len(_ALPHABET) ** _LETTERS)  # one system call, not one per letter
    letters = []
    for _ in range(_LETTERS):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return prefix + separator + "".join(letters)


def tuned_model_id(
    requested_model: str, project_id: ProjectId, suffix: str | None, maker: JobId | TaskId
) -> ModelId:
    """Return `ft:<base>:<project>:<suffix>:<id>`, where `<id>` is the start of its maker's id.

    `<base>` is the name that the request used for the base, an alias for instance. If the
    request named a tuned model, it is the `<base>` of that model. Of a name with slashes, only the
    last part is used, because clients take what precedes a slash for the name of a provider.
    """
    name = requested_model
    if name.startswith(TUNED_PREFIX):
        name = name.split(":")[1]
    start = maker.partition("-")[2][:8]
    return ModelId(f"{TUNED_PREFIX}{name.rsplit('/', 1)[-1]}:{project_id}:{suffix or ''}:{start}")


def checkpoint_model_id(model_id: ModelId, step: int) -> ModelId:
    """Return `ft:…:ckpt-step-<n>`, the id of the model of a checkpoint."""
    return ModelId(f"{model_id}:ckpt-step-{step}")
