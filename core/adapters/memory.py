"""What becomes of a run whose memory runs out: a micro-batch can be cut, all else cannot."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from core.batching.rows import TrainingRow
from core.errors import TrainingFailed


class OutOfMemory(Exception):
    """A micro-batch of several rows did not fit; half as many tokens may."""

    def __init__(self, tokens: int) -> None:
        super().__init__(f"{tokens} tokens did not fit into memory")
        self.half = max(1, tokens // 2)


@contextmanager
def within_memory(rows: Sequence[TrainingRow]) -> Iterator[None]:
    """Run the micro-batch `rows` in the block; OutOfMemory when memory runs out in it.

    TrainingFailed `out_of_memory` when there is but one row.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        error.__traceback__ = None  # its frames hold the tensors of the failed pass
    else:
        return
    tokens = sum(row.length for row in rows)
    if len(rows) > 1:
        raise OutOfMemory(tokens)
    raise TrainingFailed(
        f"Line {rows[0].line} alone, with {tokens} tokens, does not fit into memory. Shorten it, "
        "have it cut (training.truncation with a smaller training.max_length), turn "
        "training.gradient_checkpointing on, or choose qlora or a smaller base.",
        code="out_of_memory",
    )


@contextmanager
def all_or_nothing(what: str) -> Iterator[None]:
    """Run the block; TrainingFailed `out_of_memory` names `what` when memory runs out in it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingFailed(
            f"{what} does not fit into memory. Choose qlora, another strategy with fewer trained "
            "weights, or a smaller base.",
            code="out_of_memory",
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an allocation failed, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return "can't allocate memory" in message or "std::bad_alloc" in message
