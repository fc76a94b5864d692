"""Requests to models and their tokens, as eval runs and distillations count them."""

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

MAX_MODELS = 100
"""Names of models that are counted; an external endpoint may invent one for each answer."""
OTHER_MODELS = "other models"


class ModelUsage(TypedDict):
    """Requests to one model and their tokens, also those of graders."""

    model_name: str
    invocation_count: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


def added_usage(
    stored: Iterable[Mapping[str, Any]], more: Iterable[ModelUsage]
) -> list[dict[str, Any]]:
    """Return the sums by model."""
    usage = {each["model_name"]: dict(each) for each in stored}
    for each in more:
        has_room = each["model_name"] in usage or len(usage) < MAX_MODELS
        model = each["model_name"] if has_room else OTHER_MODELS
        total = usage.setdefault(model, {"model_name": model})
        for name, number in each.items():
            if isinstance(number, int):
                total[name] = total.get(name, 0) + number
    return list(usage.values())
