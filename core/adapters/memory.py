"""Handles running out of memory: micro-batches can be split, other work fails."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from core.batching.rows import TrainingRow
from core.errors import TrainingFailed


class OutOfMemory(Exception):
    """A micro-batch of several rows did not fit; half of its tokens may."""

    def __init__(self, tokens: int) -> None:
        super().__init__(f"{tokens} tokens did not fit into memory")
        self.half = max(1, tokens // 2)


@contextmanager
def within_memory(rows: Sequence[TrainingRow]) -> Iterator[None]:
    """Convert out-of-memory errors of the block, which runs the micro-batch `rows`.

    Raises OutOfMemory, or TrainingFailed `out_of_memory` if there is only one row.
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
        f"Line {rows[0].line} with {tokens} tokens does not fit into memory by itself. Shorten it, "
        "truncate it (training.truncation with a smaller training.max_length), set "
        "training.gradient_checkpointing to true, or use qlora or a smaller base.",
        code="out_of_memory",
    )


@contextmanager
def all_or_nothing(what: str) -> Iterator[None]:
    """Convert out-of-memory errors of the block to TrainingFailed `out_of_memory` about `what`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingFailed(
            f"{what} does not fit into memory. Use qlora, another strategy with fewer trained "
            "weights, or a smaller base.",
            code="out_of_memory",
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error is a failed allocation, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return "can't allocate memory" in message or "std::bad_alloc" in message
