"""The facts of each objective, one row for each."""

from dataclasses import dataclass
from typing import Literal, get_args

from core.spec.dataset import DatasetFormat
from core.spec.members import for_each
from core.spec.objective import MethodName, ObjectiveSpec, Task

Target = Literal["tokens", "pairs", "answers", "rows"]


@dataclass(frozen=True)
class ObjectiveFacts:
    """One objective."""

    tasks: tuple[Task, ...]
    """The tasks of the models that it trains; a decoder's task comes first."""
    method: MethodName
    """Its name in a request."""
    formats: tuple[DatasetFormat, ...]
    """The formats that it trains on; a method has one objective for each of its formats."""
    target: Target
    """The unit over which its loss is averaged."""
    epochs: int | None
    """The value of `auto`; None: it depends on the number of rows."""
    full_rate_steps: int | None
    """Steps up to which it uses the learning rate of demonstrations; None: always."""
    trains_head: bool
    """It trains a new head for labels."""
    splits_conversations: bool
    """The answers of one conversation may become several rows."""


OBJECTIVES: dict[str, ObjectiveFacts] = for_each(
    ObjectiveSpec,
    {
        "supervised": ObjectiveFacts(
            tasks=("generation", "seq2seq"),
            method="supervised",
            formats=("chat", "prompt-completion", "instruction"),
            target="tokens",
            epochs=None,
            full_rate_steps=None,
            trains_head=False,
            splits_conversations=True,
        ),
        "pretraining": ObjectiveFacts(
            tasks=("generation",),
            method="supervised",
            formats=("text",),
            target="tokens",
            epochs=None,
            full_rate_steps=None,
            trains_head=False,
            splits_conversations=False,
        ),
        "dpo": ObjectiveFacts(
            tasks=("generation",),
            method="dpo",
            formats=("preference",),
            target="pairs",
            epochs=1,
            full_rate_steps=16,
            trains_head=False,
            splits_conversations=False,
        ),
        "orpo": ObjectiveFacts(
            tasks=("generation",),
            method="orpo",
            formats=("preference",),
            target="pairs",
            epochs=None,
            full_rate_steps=None,
            trains_head=False,
            splits_conversations=False,
        ),
        "simpo": ObjectiveFacts(
            tasks=("generation",),
            method="simpo",
            formats=("preference",),
            target="pairs",
            epochs=1,
            full_rate_steps=16,
            trains_head=False,
            splits_conversations=False,
        ),
        "kto": ObjectiveFacts(
            tasks=("generation",),
            method="kto",
            formats=("unpaired-preference", "preference"),
            target="answers",
            epochs=1,
            full_rate_steps=16,
            trains_head=False,
            splits_conversations=False,
        ),
        "classification": ObjectiveFacts(
            tasks=("classification",),
            method="supervised",
            formats=("classification",),
            target="rows",
            epochs=None,
            full_rate_steps=None,
            trains_head=True,
            splits_conversations=False,
        ),
    },
)

OBJECTIVES_OF: dict[Task, tuple[str, ...]] = {
    task: tuple(name for name, facts in OBJECTIVES.items() if task in facts.tasks)
    for task in get_args(Task)
}
"""By task, in the order of the table."""


def objective_of(method: MethodName, format_: DatasetFormat) -> str | None:
    """Return the objective of a method for a format, or None."""
    return next(
        (
            name
            for name, facts in OBJECTIVES.items()
            if facts.method == method and format_ in facts.formats
        ),
        None,
    )


def rows_of(objective: str, format_: DatasetFormat | None, lines: int) -> int:
    """Return the number of rows that a file's lines become, if none is split by its length.

    A preference has two answers, which are two rows of an objective that learns from each alone.
    """
    has_answers_apart = OBJECTIVES[objective].target == "answers" and format_ == "preference"
    return 2 * lines if has_answers_apart else lines


def methods_of(format_: DatasetFormat) -> tuple[MethodName, ...]:
    """Return the methods that train on a format."""
    return tuple(facts.method for facts in OBJECTIVES.values() if format_ in facts.formats)


def formats_of(method: MethodName) -> tuple[DatasetFormat, ...]:
    """Return the formats that a method trains on."""
    return tuple(
        format_
        for facts in OBJECTIVES.values()
        if facts.method == method
        for format_ in facts.formats
    )
