"""The rows of each optimizer step: a pure function of (seed, epoch)."""

import hashlib
import random


def derived_seed(*parts: int) -> int:
    """Return a 63-bit seed that depends on every part and on their order."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def row_order(seed: int, epoch: int, rows: int) -> list[int]:
    """Return a permutation of `range(rows)`, the same for the same (seed, epoch)."""
    order = list(range(rows))
    random.Random(derived_seed(seed, epoch)).shuffle(order)
    return order


def steps_of_epoch(seed: int, epoch: int, rows: int, batch_size: int) -> list[list[int]]:
    """Return the row indices of each optimizer step; the last step may have fewer rows."""
    order = row_order(seed, epoch, rows)
    return [order[start : start + batch_size] for start in range(0, rows, batch_size)]
