"""Builds the input tensors of a step from its chunks.

Rows are sorted by the length of their chunk, then by adapter, so that rows that are computed
together are adjacent.
"""

# T tokens of the step, S sequences with a sampled next token, N blocks of a sequence,
# P virtual tokens, E hidden size

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from core.adapters.segments import Segments
from core.adapters.virtual import PrefixStates
from core.engine.policy.request import AnySequence
from core.engine.policy.step import Chunk
from core.models.block_cache import BlockCache, Slots
from core.models.indices import as_index
from core.models.paged_attention import GivenStates, PagedStep, SingleTokens, TokenRun

PLACEHOLDER = 0
"""A token without effect: padding, or a placeholder for a virtual token."""

VirtualTokens = Mapping[str, PrefixStates | Tensor]
"""For each adapter, the keys and values of its virtual tokens, or their embeddings (P, E)."""


@dataclass(frozen=True)
class ScoredRun:
    """Positions of a prompt whose next tokens are to be scored."""

    sequence: AnySequence
    rows: slice
    """Their rows in the step."""
    first: int
    """The first predicted position."""
    next_tokens: Sequence[int]


@dataclass(frozen=True)
class StepTensors:
    """One step, ready to run. `embeddings` replace those of the placeholders."""

    tokens_1T: Tensor
    positions_1T: Tensor
    segments: Segments
    paged: PagedStep
    embeddings: Sequence[tuple[slice, Tensor]]
    ends_S: Tensor
    """The row of the last position of each sequence with a sampled next token."""
    ending: Sequence[AnySequence]
    ending_segments: Segments
    scored: Sequence[ScoredRun]


def lay_out_step(
    chunks: Sequence[Chunk],
    cache: BlockCache,
    virtual: VirtualTokens,
) -> StepTensors:
    """Return the tensors of a step. Every sequence must have the blocks for its chunk."""
    size, device = cache.block_tokens, cache.keys[0].device
    # 1. Sort the chunks. Single tokens come first, so attention takes them as one group, and rows
    #    of one adapter are neighbors, so its weights are applied once.
    chunks = sorted(chunks, key=_order)
    # 2. Concatenate the T tokens of all chunks.
    rows = _Rows(size, device, virtual)
    for chunk in chunks:
        rows.add(chunk)
    # 3. Copy token, position, block and offset in the block to the device: one copy of (4, T).
    offsets = [position % size for position in rows.positions]
    numbers_4T = _tensor([rows.tokens, rows.positions, rows.blocks, offsets], device)
    tokens_T, positions_T, blocks_T, offsets_T = numbers_4T.unbind()
    # 4. Sample a next token only for the S chunks that end their sequence: the output head, the
    #    largest matrix of many models, runs on S rows instead of T.
    ending = [chunk for chunk in chunks if chunk.is_last]
    return StepTensors(
        tokens_1T=tokens_T[None],
        positions_1T=positions_T[None],
        segments=_segments(chunks, [chunk.end - chunk.start for chunk in chunks]),
        paged=PagedStep(
            cache,
            Slots(blocks_T, offsets_T),
            _single_tokens(chunks, size, device),
            _joined(rows.runs),
            rows.given,
        ),
        embeddings=rows.embeddings,
        ends_S=torch.tensor(rows.ends, dtype=torch.long, device=device),
        ending=[chunk.sequence for chunk in ending],
        ending_segments=_segments(ending, [1] * len(ending)),
        scored=rows.scored,
    )


@dataclass
class _Rows:
    """The T rows of a step, appended chunk by chunk."""

    block_tokens: int
    device: torch.device
    virtual: VirtualTokens
    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    """In their sequences."""
    blocks: list[int] = field(default_factory=list)
    """Of the cache, for the keys and values of each row."""
    ends: list[int] = field(default_factory=list)
    """Rows whose state yields a sampled token."""
    runs: list[TokenRun] = field(default_factory=list)
    given: list[GivenStates] = field(default_factory=list)
    embeddings: list[tuple[slice, Tensor]] = field(default_factory=list)
    scored: list[ScoredRun] = field(default_factory=list)

    def add(self, chunk: Chunk) -> None:
        """Append the rows of a chunk."""
        sequence, first = chunk.sequence, len(self.tokens)
        positions = range(chunk.start, chunk.end)
        self.tokens += sequence.all_tokens[chunk.start : chunk.end]
        self.positions += positions
        self.blocks += [sequence.blocks[position // self.block_tokens] for position in positions]
        # a chunk of several tokens is a group of its own and attends to all blocks up to its end
        if len(positions) > 1:
            used_N = torch.tensor(_blocks_read(chunk, self.block_tokens), device=self.device)
            self.runs.append(TokenRun(first, len(positions), used_N, chunk.start))
        if chunk.start < sequence.request.virtual_tokens:
            self._add_virtual(chunk, first)
        if sequence.scores_prompt:
            self.scored += _scored_run(chunk, first)
        if chunk.is_last:
            self.ends.append(len(self.tokens) - 1)

    def _add_virtual(self, chunk: Chunk, first: int) -> None:
        """Record the replacements of a chunk's virtual tokens; its rows begin at `first`."""
        end = min(chunk.end, chunk.sequence.request.virtual_tokens)
        rows = slice(first, first + end - chunk.start)
        # virtual tokens are not in the vocabulary: the model reads a placeholder without effect
        self.tokens[rows] = [PLACEHOLDER] * (end - chunk.start)
        states = self.virtual[_adapter(chunk)]
        if isinstance(states, PrefixStates):
            self.given.append(GivenStates(rows, states, chunk.start, end))
        else:
            self.embeddings.append((rows, states[chunk.start : end]))


def _tensor(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return rows of equal length as integers; numpy converts them four times as fast as torch."""
    return torch.from_numpy(np.array(rows, dtype=np.int64)).to(device)


def _scored_run(chunk: Chunk, first_row: int) -> list[ScoredRun]:
    """Return the positions of a chunk that predict tokens of the prompt after its first."""
    sequence = chunk.sequence
    start = max(chunk.start, sequence.request.virtual_tokens)
    end = min(chunk.end, sequence.opening_length - 1)
    if start >= end:
        return []
    rows = slice(first_row + start - chunk.start, first_row + end - chunk.start)
    return [ScoredRun(sequence, rows, start + 1, sequence.all_tokens[start + 1 : end + 1])]


def _order(chunk: Chunk) -> tuple[int, str]:
    return chunk.end - chunk.start, _adapter(chunk)


def _adapter(chunk: Chunk) -> str:
    """Return the adapter, "" for the base alone."""
    return chunk.sequence.request.model.adapter_sha256 or ""


def _blocks_read(chunk: Chunk, block_tokens: int) -> list[int]:
    """Return the blocks of the positions up to the end of a chunk."""
    return chunk.sequence.blocks[: -(-chunk.end // block_tokens)]


def _segments(chunks: Sequence[Chunk], lengths: Sequence[int]) -> Segments:
    """Return the adapters of the chunks; adjacent chunks of the same adapter are joined."""
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
    """Join sequences that begin in this step and have equal lengths."""
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
    """Group single-token sequences by length, so that padding at most doubles a sequence.

    They are the first rows of the step.
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
