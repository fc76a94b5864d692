"""The longest row of a job: the context of the base minus the strategy's virtual tokens."""

from core.catalog.strategies import virtual_tokens
from core.errors import InvalidRequest
from core.spec.strategy import StrategySpec
from core.spec.training import SHORTEST_ROW, TrainingSpec


def room_for_rows(strategy: StrategySpec, context_length: int) -> int:
    """Return how many tokens of a row fit into the context."""
    return context_length - virtual_tokens(strategy)


def require_room(strategy: StrategySpec, context_length: int, base_id: str) -> None:
    """Raise InvalidRequest if virtual tokens leave too few positions for a text."""
    if room_for_rows(strategy, context_length) < SHORTEST_ROW and virtual_tokens(strategy):
        raise InvalidRequest(
            f"{virtual_tokens(strategy)} virtual tokens leave too little room for a text: the "
            f"context of {base_id} has {context_length} tokens. Use fewer.",
            param="strategy.virtual_tokens",
            code="invalid_value",
        )


def within_context(
    training: TrainingSpec, strategy: StrategySpec, context_length: int
) -> TrainingSpec:
    """Return `training` with `max_length` limited to the room in the context."""
    max_length = min(training.max_length, room_for_rows(strategy, context_length))
    return training.model_copy(update={"max_length": max_length})
