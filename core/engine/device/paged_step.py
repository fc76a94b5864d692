"""From the chunks of a step to the tensors that the model is called with.

Rows stand sorted by the length of their chunk, then by adapter: what can be computed together
stands together.
"""

# T tokens of the step, S sequences whose next token is sampled, P virtual tokens, E hidden size

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from core.adapters.lora_rows import Segments
from core.adapters.virtual import PrefixStates
from core.engine.policy.request import AnySequence
from core.engine.policy.step import Chunk
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
    size, device = cache.block_tokens, cache.keys[0].device
    chunks = sorted(chunks, key=_order)
    tokens: list[int] = []
    positions: list[int] = []
    blocks: list[int] = []
    runs: list[TokenRun] = []
    given: list[GivenStates] = []
    embeddings: list[tuple[slice, Tensor]] = []
    ends: list[int] = []
    scored: list[ScoredRun] = []
    for chunk in chunks:
        sequence, first = chunk.sequence, len(tokens)
        places = range(chunk.start, chunk.end)
        tokens += sequence.places[chunk.start : chunk.end]
        positions += places
        blocks += [sequence.blocks[place // size] for place in places]
        if len(places) > 1:
            used = torch.tensor(_blocks_read(chunk, size), device=device)
            runs.append(TokenRun(first, len(places), used, chunk.start))
        if chunk.start < sequence.request.virtual_tokens:
            end = min(chunk.end, sequence.request.virtual_tokens)
            rows = slice(first, first + end - chunk.start)
            tokens[rows] = [PLACEHOLDER] * (end - chunk.start)
            states = virtual[_adapter(chunk)]
            if isinstance(states, PrefixStates):
                given.append(GivenStates(rows, states, chunk.start, end))
            else:
                embeddings.append((rows, states[chunk.start : end]))
        if sequence.scores_places:
            scored += _scored_run(chunk, first)
        if chunk.is_last:
            ends.append(len(tokens) - 1)
    ending = [chunk for chunk in chunks if chunk.is_last]
    places_in_block = [position % size for position in positions]
    numbers = _tensor([tokens, positions, blocks, places_in_block], device)
    tokens_T, positions_T, blocks_T, places_T = numbers.unbind()
    return StepTensors(
        tokens_1T=tokens_T[None],
        positions_1T=positions_T[None],
        segments=_segments(chunks, [chunk.end - chunk.start for chunk in chunks]),
        paged=PagedStep(
            cache,
            Slots(blocks_T, places_T),
            _single_tokens(chunks, size, device),
            _joined(runs),
            given,
        ),
        embeddings=embeddings,
        ends_S=torch.tensor(ends, dtype=torch.long, device=device),
        ending=[chunk.sequence for chunk in ending],
        ending_segments=_segments(ending, [1] * len(ending)),
        scored=scored,
    )


def _tensor(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return rows of equal length as integers; numpy reads them in a quarter of PyTorch's time."""
    return torch.from_numpy(np.array(rows, dtype=np.int64)).to(device)


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
    return chunk.end - chunk.start, _adapter(chunk)


def _adapter(chunk: Chunk) -> str:
    """Name the adapter, "" for the base alone."""
    return chunk.sequence.request.model.adapter_sha256 or ""


def _blocks_read(chunk: Chunk, block_tokens: int) -> list[int]:
    """Return the blocks of the places up to the end of a chunk."""
    return chunk.sequence.blocks[: -(-chunk.end // block_tokens)]


def _segments(chunks: Sequence[Chunk], lengths: Sequence[int]) -> Segments:
    """Say through which adapters the chunks run; neighbours with the same one are joined."""
    adapters: list[str | None] = []
    joined: list[int] = []
    for chunk, length in zip(chunks, lengths, strict=True):
        adapter = chunk.sequence.request.model.adapter_sha256
        if adapters and adapters[-1] == adapter:
            joined[-1] += length
        else:
            adapters.append(adapter)
            joined.append(length)
    return Segments(tuple(adapters), tuple(joined))


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
    chunks: Sequence[Chunk], block_tokens: int, device: torch.device
) -> list[SingleTokens]:
    """Group the sequences that read one token by length, so that none is padded to more than twice.

    They are the first of the step.
    """
    groups: dict[int, list[int]] = {}
    for row, chunk in enumerate(chunks):
        if chunk.end - chunk.start > 1:
            break
        groups.setdefault((len(chunk.sequence.blocks) - 1).bit_length(), []).append(row)
    return [
        _group(rows, [chunks[row] for row in rows], block_tokens, device)
        for rows in groups.values()
    ]


def _group(
    rows: Sequence[int], chunks: Sequence[Chunk], block_tokens: int, device: torch.device
) -> SingleTokens:
    used = [_blocks_read(chunk, block_tokens) for chunk in chunks]
    longest = max(map(len, used))
    return SingleTokens(
        as_index(rows, device),
        torch.tensor([chunk.end for chunk in chunks], device=device),
        _tensor([each + each[-1:] * (longest - len(each)) for each in used], device),
        block_tokens,
    )
