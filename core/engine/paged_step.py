"""From the chunks of a step to the tensors that the model is called with.

Rows stand sorted by adapter, so that each adapter's are together.
"""

# T tokens of the step, B sequences with one token each, N blocks of a sequence

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from core.adapters.lora_stack import Segments
from core.adapters.virtual import PrefixStates
from core.engine.request import VIRTUAL_TOKEN
from core.engine.scheduler import AnySequence, Chunk
from core.models.paged_attention import (
    BlockCache,
    GivenStates,
    PagedStep,
    SingleTokens,
    TokenRun,
)

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
    chunks: Sequence[Chunk], cache: BlockCache, virtual: VirtualTokens, device: torch.device
) -> StepTensors:
    """Return the tensors of a step; every chunk's sequence has the blocks for it."""
    chunks = sorted(chunks, key=_adapter)
    size = cache.block_tokens
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    singles: list[tuple[int, Chunk]] = []
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
        slots += (
            sequence.blocks[place // size] * size + place % size
            for place in range(chunk.start, chunk.end)
        )
        if len(places) == 1:
            singles.append((first, chunk))
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
            torch.tensor(slots, device=device),
            [_singles(each, size, device) for each in _of_similar_length(singles)],
            runs,
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


def _of_similar_length(singles: Sequence[tuple[int, Chunk]]) -> list[list[tuple[int, Chunk]]]:
    """Group sequences whose blocks fit one table without much padding."""

    def magnitude(single: tuple[int, Chunk]) -> int:
        return len(single[1].sequence.blocks).bit_length()

    return [list(group) for _, group in groupby(sorted(singles, key=magnitude), key=magnitude)]


def _singles(
    group: Sequence[tuple[int, Chunk]], block_tokens: int, device: torch.device
) -> SingleTokens:
    used = [chunk.sequence.blocks[: -(-chunk.end // block_tokens)] for _, chunk in group]
    longest = max(map(len, used))
    return SingleTokens(
        torch.tensor([first for first, _ in group], device=device),
        torch.tensor([blocks + [0] * (longest - len(blocks)) for blocks in used], device=device),
        torch.tensor([chunk.end for _, chunk in group], device=device),
    )
