"""From the chunks of a step to the tensors that the model is called with.

Rows stand sorted by the length of their chunk, then by adapter.
"""

# T tokens of the step, S sequences whose next token is sampled, P virtual tokens, E hidden size

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from core.adapters.lora_rows import Segments
from core.adapters.virtual import PrefixStates
from core.engine.request import VIRTUAL_TOKEN
from core.engine.scheduler import AnySequence, Chunk
from core.models.block_cache import BlockCache, Slots
from core.models.indices import as_index
from core.models.paged_attention import GivenStates, PagedStep, SingleTokens, TokenRun

PLACEHOLDER = 0
"""A token that is read and has no effect: padding, or the place of a virtual token."""

VirtualTokens = Mapping[str, PrefixStates | Tensor]
"""By adapter: the keys and values of its virtual tokens, or their embeddings (P, E)."""


@dataclass(frozen=True)
class ScoredRun:
    """Places of a prompt whose next token is known, and how likely that is is asked for."""

    sequence: AnySequence
    rows: slice
    """Where they stand in the step."""
    first: int
    """The first of the places that they predict."""
    next_tokens: Sequence[int]


@dataclass(frozen=True)
class _Single:
    """A chunk of one place, and where that stands in the step."""

    row: int
    chunk: Chunk


@dataclass(frozen=True)
class StepTensors:
    """One step, ready to run. `embeddings` go in the place of those of virtual tokens."""

    tokens_1T: Tensor
    positions_1T: Tensor
    segments: Segments
    paged: PagedStep
    embeddings: Sequence[tuple[slice, Tensor]]
    ends_S: Tensor
    """Where the last place of each sequence stands whose next token is to be sampled."""
    ending: Sequence[AnySequence]
    ending_segments: Segments
    scored: Sequence[ScoredRun]


def lay_out_step(
    chunks: Sequence[Chunk],
    cache: BlockCache,
    virtual: VirtualTokens,
) -> StepTensors:
    """Return the tensors of a step; every chunk's sequence has the blocks for it."""
    chunks = sorted(chunks, key=_order)
    size, device = cache.block_tokens, cache.keys[0].device
    tokens: list[int] = []
    positions: list[int] = []
    blocks: list[int] = []
    places_in_block: list[int] = []
    singles: list[_Single] = []
    runs: list[TokenRun] = []
    given: list[GivenStates] = []
    embeddings: list[tuple[slice, Tensor]] = []
    ends: list[int] = []
    scored: list[ScoredRun] = []
    for chunk in chunks:
        sequence, first = chunk.sequence, len(tokens)
        places = sequence.places[chunk.start : chunk.end]
        tokens += (PLACEHOLDER if token == VIRTUAL_TOKEN else token for token in places)
        positions += range(chunk.start, chunk.end)
        blocks += (sequence.blocks[place // size] for place in range(chunk.start, chunk.end))
        places_in_block += (place % size for place in range(chunk.start, chunk.end))
        if len(places) == 1:
            singles.append(_Single(first, chunk))
        else:
            used = sequence.blocks[: -(-chunk.end // size)]
            blocks_N = torch.tensor(used, device=device)
            runs.append(TokenRun(first, len(places), blocks_N, chunk.start))
        states = virtual.get(_adapter(chunk))
        if states is not None:
            end = min(chunk.end, _tokens(states))
            rows = slice(first, first + end - chunk.start)
            if rows.start >= rows.stop:
                pass  # the virtual places are behind it
            elif isinstance(states, PrefixStates):
                given.append(GivenStates(rows, states, chunk.start, end))
            else:
                embeddings.append((rows, states[chunk.start : end]))
        if sequence.scores_places:
            scored += _scored_run(chunk, first)
        if chunk.is_last:
            ends.append(len(tokens) - 1)
    ending = [chunk for chunk in chunks if chunk.is_last]
    return StepTensors(
        tokens_1T=torch.tensor([tokens], device=device),
        positions_1T=torch.tensor([positions], device=device),
        segments=_segments([(_adapter(each), each.end - each.start) for each in chunks]),
        paged=PagedStep(
            cache,
            Slots(
                torch.tensor(blocks, device=device), torch.tensor(places_in_block, device=device)
            ),
            _single_tokens(singles, size, device),
            _joined(runs),
            given,
        ),
        embeddings=embeddings,
        ends_S=torch.tensor(ends, dtype=torch.long, device=device),
        ending=[chunk.sequence for chunk in ending],
        ending_segments=_segments([(_adapter(each), 1) for each in ending]),
        scored=scored,
    )


def _scored_run(chunk: Chunk, first_row: int) -> list[ScoredRun]:
    """Return the places of a chunk that predict a token of the prompt after its first."""
    sequence = chunk.sequence
    start = max(chunk.start, sequence.request.virtual_tokens)
    end = min(chunk.end, sequence.opening_length - 1)
    if start >= end:
        return []
    rows = slice(first_row + start - chunk.start, first_row + end - chunk.start)
    return [ScoredRun(sequence, rows, start + 1, sequence.places[start + 1 : end + 1])]


def _order(chunk: Chunk) -> tuple[int, str]:
    """Sort by length and adapter: what can be computed together stands together."""
    return chunk.end - chunk.start, _adapter(chunk)


def _adapter(chunk: Chunk) -> str:
    """Name the adapter, "" for the base alone."""
    return chunk.sequence.request.model.adapter_sha256 or ""


def _tokens(states: PrefixStates | Tensor) -> int:
    return states.tokens if isinstance(states, PrefixStates) else len(states)


def _segments(rows: Sequence[tuple[str, int]]) -> Segments:
    """Join the neighbours that have the same adapter."""
    joined = [
        (name or None, sum(length for _, length in group))
        for name, group in groupby(rows, key=lambda row: row[0])
    ]
    return Segments(tuple(name for name, _ in joined), tuple(length for _, length in joined))


def _joined(runs: Sequence[TokenRun]) -> list[TokenRun]:
    """Take sequences together that begin in this step and read equally many tokens."""
    joined: list[TokenRun] = []
    for run in runs:
        if joined and joined[-1].before == run.before == 0 and joined[-1].length == run.length:
            joined[-1] = replace(joined[-1], sequences=joined[-1].sequences + 1)
        else:
            joined.append(run)
    return joined


def _single_tokens(
    singles: Sequence[_Single], block_tokens: int, device: torch.device
) -> list[SingleTokens]:
    """Group sequences that read one token by length, so that none is padded to more than twice."""
    groups: dict[int, list[_Single]] = {}
    for single in singles:
        groups.setdefault((len(single.chunk.sequence.blocks) - 1).bit_length(), []).append(single)
    return [_group(group, block_tokens, device) for group in groups.values()]


def _group(group: Sequence[_Single], block_tokens: int, device: torch.device) -> SingleTokens:
    used = [each.chunk.sequence.blocks[: -(-each.chunk.end // block_tokens)] for each in group]
    longest = max(map(len, used))
    padded = [blocks + blocks[-1:] * (longest - len(blocks)) for blocks in used]
    return SingleTokens(
        as_index([single.row for single in group], device),
        torch.tensor([single.chunk.end for single in group], device=device),
        torch.tensor(padded, device=device),
        block_tokens,
    )
