"""The supported combinations of family, task, objective and strategy, and why others are not."""

from core.catalog.families import family_of
from core.catalog.family import Kind
from core.catalog.objectives import OBJECTIVES_OF
from core.catalog.strategies import STRATEGIES
from core.errors import InvalidRequest
from core.spec.objective import Task

_WHY_NOT: dict[tuple[Kind, Task], str] = {
    ("decoder", "seq2seq"): (
        "has no encoder; use the task generation with prompts and completions"
    ),
    ("encoder", "generation"): "cannot continue a text",
    ("encoder", "seq2seq"): "has no decoder to generate a text",
    ("encoder-decoder", "generation"): "generates a target for a source; use the task seq2seq",
    ("encoder-decoder", "classification"): (
        "has no classification head; use an encoder or a decoder, or the task seq2seq with the "
        "label as the target"
    ),
}


def require_combination(
    model_type: str, task: Task, objective: str, strategy: str, quantized: bool = False
) -> None:
    """Raise InvalidRequest with the reason if the combination is not supported.

    `quantized`: the weights of the base are quantized. `param` of the error is the field to change.
    """
    family = family_of(model_type)
    if task not in family.tasks:
        raise InvalidRequest(
            f"A base of type {model_type} does not support the task {task}: it "
            f"{_WHY_NOT[family.kind, task]}. Supported tasks: {', '.join(family.tasks)}.",
            param="task",
            code="impossible_combination",
        )
    if objective not in OBJECTIVES_OF[task]:
        raise InvalidRequest(
            f"The task {task} does not support the objective {objective}. "
            f"Supported objectives: {', '.join(OBJECTIVES_OF[task])}.",
            param="objective",
            code="impossible_combination",
        )
    if STRATEGIES[strategy].hands_over_keys and not family.takes_prefix:
        raise InvalidRequest(
            f"A base of type {model_type} does not accept external keys and values, so it does not "
            "support the strategy prefix. The strategy prompt is the most similar.",
            param="strategy.type",
            code="impossible_combination",
        )
    if STRATEGIES[strategy].full_model and quantized:
        raise InvalidRequest(
            "The weights of this base are quantized and cannot be trained. Use lora or qlora, or "
            "the original base.",
            param="strategy.type",
            code="impossible_combination",
        )


def require_mergeable(strategy: str, stored_quantized: bool) -> None:
    """Raise InvalidRequest with the reason if an adapter cannot be merged into its base.

    `stored_quantized`: the base is stored quantized, so its dense weights are not available.
    """
    reason = STRATEGIES[strategy].not_mergeable
    if reason is None and stored_quantized and not STRATEGIES[strategy].full_model:
        reason = "belongs to a base that is stored quantized, without dense weights"
    if reason is not None:
        raise InvalidRequest(
            f"This model cannot be merged: its strategy {strategy} {reason}. Serve it as an "
            "adapter.",
            param="form",
            code="not_mergeable",
        )
