"""Which combinations of family, task, objective and strategy exist, and why the others do not."""

from core.catalog.families import family_of
from core.catalog.family import Kind
from core.catalog.objectives import OBJECTIVES_OF
from core.catalog.strategies import STRATEGIES
from core.errors import InvalidRequest
from core.spec.objective import Task

_WHY_NOT: dict[tuple[Kind, Task], str] = {
    ("decoder", "seq2seq"): (
        "has no encoder; the task generation does the same with prompts and completions"
    ),
    ("encoder", "generation"): "reads a whole text at once and cannot continue one",
    ("encoder", "seq2seq"): "has no decoder that could write a text",
    ("encoder-decoder", "generation"): "writes a text for another one; that is the task seq2seq",
    ("encoder-decoder", "classification"): (
        "has no head for labels here; use an encoder or a decoder, or the task seq2seq with the "
        "label as the text to write"
    ),
}


def require_cell(
    model_type: str, task: Task, objective: str, strategy: str, quantised: bool = False
) -> None:
    """Raise InvalidRequest with the reason when there is no such combination.

    `quantised` says that the weights of the base are. `param` names the field to change.
    """
    family = family_of(model_type)
    if task not in family.tasks:
        raise InvalidRequest(
            f"The task {task} cannot be done with a base of type {model_type}: it "
            f"{_WHY_NOT[family.kind, task]}. Its tasks: {', '.join(family.tasks)}.",
            param="task",
            code="impossible_combination",
        )
    if objective not in OBJECTIVES_OF[task]:
        raise InvalidRequest(
            f"The objective {objective} does not go with the task {task}. "
            f"Its objectives: {', '.join(OBJECTIVES_OF[task])}.",
            param="objective",
            code="impossible_combination",
        )
    if STRATEGIES[strategy].hands_over_keys and not family.takes_prefix:
        raise InvalidRequest(
            f"A base of type {model_type} cannot be given keys and values from outside, so no "
            "program could run it with a prefix. The strategy prompt comes nearest.",
            param="strategy.type",
            code="impossible_combination",
        )
    if STRATEGIES[strategy].whole_model and quantised:
        raise InvalidRequest(
            "The weights of this base are quantised and cannot be trained. Use lora or qlora, or "
            "the base that it was made from.",
            param="strategy.type",
            code="impossible_combination",
        )


def require_mergeable(strategy: str, stored_quantised: bool) -> None:
    """Raise InvalidRequest with the reason when what was trained cannot become the base's weights.

    `stored_quantised` says that the base is stored quantised, so that its plain weights are gone.
    """
    reason = STRATEGIES[strategy].not_mergeable
    if reason is None and stored_quantised and not STRATEGIES[strategy].whole_model:
        reason = "belongs to a base that is stored quantised, whose own weights are not there"
    if reason is not None:
        raise InvalidRequest(
            f"This model cannot be merged: its strategy {strategy} {reason}. Serve it as an "
            "adapter.",
            param="form",
            code="not_mergeable",
        )
