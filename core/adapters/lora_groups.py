"""Which segments of a batch run together through the low-rank updates of their adapters.

On a CPU each row of a short segment gathers the matrices of its adapter by itself, in whatever
order and company. Everywhere else, and for long segments, segments side by side go through one
batched product. Segments that have no company go through products of their own.
"""

from collections.abc import Sequence

from core.adapters.lora_rows import AloneRows, GatheredRows, LoraRows, PaddedRows
from core.adapters.lora_slots import LoraSlots
from core.adapters.segments import Segments

FEWEST_TOGETHER = 3
"""Segments for which one product is faster than a product for each."""

SHORT_SEGMENT = 4
"""Tokens of a segment up to which all that are as short go through one product."""

LONGEST_GATHERED = 32
"""Tokens of a segment up to which its rows gather their matrices; more are faster as a matrix."""

LEAST_FILLED = 0.75
"""Of the longest segment that others are padded to, so that one product takes them all."""


def lora_rows(
    segments: Segments, slots: LoraSlots, indices: Sequence[int], *, together: bool
) -> list[LoraRows]:
    """Say how the segments at `indices`, whose adapters have these slots, run.

    Without `together` each runs by itself.
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
    """Group segments that one product takes: short, of equal length, and of similar length."""
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
