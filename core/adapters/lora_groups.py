"""Groups the segments of a batch for the low-rank updates of their adapters.

On a CPU, the rows of short segments gather the matrices of their adapters, in any order. Long
segments, and all segments on other devices, are padded into one batched product per group of
similar length. Segments without a group get a separate product.
"""

from collections.abc import Sequence

from core.adapters.lora_rows import AloneRows, GatheredRows, LoraRows, PaddedRows
from core.adapters.lora_slots import LoraSlots
from core.adapters.segments import Segments

FEWEST_TOGETHER = 3
"""The smallest group for which one product is faster than one per segment."""

SHORT_SEGMENT = 4
"""Segments of at most this many tokens are always grouped together."""

LONGEST_GATHERED = 32
"""Segments of at most this many tokens gather their matrices; longer ones use a product."""

LEAST_FILLED = 0.75
"""The smallest ratio of a segment's length to the longest in its group."""


def lora_rows(
    segments: Segments, slots: LoraSlots, indices: Sequence[int], *, together: bool
) -> list[LoraRows]:
    """Group the segments at `indices`, whose adapters are in `slots`.

    Without `together`, each segment is separate.
    """
    groups = _groups(segments, slots, indices) if together else []
    grouped = {index for group in groups for index in group.segments}
    return [*groups, *(AloneRows(segments, slots, i) for i in indices if i not in grouped)]


def _groups(segments: Segments, slots: LoraSlots, indices: Sequence[int]) -> list[LoraRows]:
    lengths = segments.lengths
    on_cpu = slots.device.type == "cpu"
    gathering = [i for i in indices if on_cpu and lengths[i] <= LONGEST_GATHERED]
    if len(gathering) < FEWEST_TOGETHER:
        gathering = []
    rest = [index for index in indices if index not in gathering]
    padded = [group for group in _alike(lengths, rest) if len(group) >= FEWEST_TOGETHER]
    groups: list[LoraRows] = [PaddedRows(segments, slots, group) for group in padded]
    return [GatheredRows(segments, slots, gathering), *groups] if gathering else groups


def _alike(lengths: Sequence[int], indices: Sequence[int]) -> list[list[int]]:
    """Group the segments for padded products: short, of equal length, of similar length."""
    short = [index for index in indices if lengths[index] <= SHORT_SEGMENT]
    by_length: dict[int, list[int]] = {}
    for index in indices:
        if lengths[index] > SHORT_SEGMENT:
            by_length.setdefault(lengths[index], []).append(index)
    equal = [group for group in by_length.values() if len(group) >= FEWEST_TOGETHER]
    rest = [group for group in by_length.values() if len(group) < FEWEST_TOGETHER]
    longest = max((lengths[group[0]] for group in rest), default=0)
    similar = [i for group in rest for i in group if lengths[i] >= LEAST_FILLED * longest]
    return [short, *equal, sorted(similar)]
