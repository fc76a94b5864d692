"""Who runs next: continuous batching, as plain Python policy without tensors.

Each base that is in memory is a lane, and lanes take turns. A step of a lane first gives every
sequence that writes its next token, then spends what is left of the budget on reading prompts, in
chunks, and then admits. So neither a long prompt nor a stream of new requests keeps a stream
waiting. Sequences join and leave at any step. When the cache is full, the sequence that was
admitted last gives its blocks back and waits again, with all that it has written.

Source: Yu et al. 2022, https://www.usenix.org/conference/osdi22/presentation/yu (scheduling by
iteration); Agrawal et al. 2024, https://arxiv.org/abs/2403.02310 (chunked prefill).
"""

import sys
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from core.engine.policy.blocks import BlockPool
from core.engine.policy.fair_queue import FairQueue
from core.engine.policy.request import AnyRequest, BaseKey, Sequence

AnySequence = Sequence[Any]


@dataclass(frozen=True)
class Limits:
    """Bounds of what is held at once.

    `max_sequences` counts running sequences of all bases together. A request is taken while fewer
    than `max_waiting` sequences wait, whatever its own number of choices or texts. `max_bases`
    bounds the bases with running sequences, `max_base_bytes` the memory of those together,
    `max_adapters` the adapters of those on one base. A step of a base with a cache has at most
    `max_step_tokens` tokens, and an eighth more where that ends a prompt.
    """

    max_sequences: int
    max_waiting: int
    max_step_tokens: int
    max_bases: int
    max_adapters: int
    max_base_bytes: int = sys.maxsize

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        if self.max_step_tokens < self.max_sequences:
            raise ValueError("max_step_tokens must not be less than max_sequences.")


@dataclass(frozen=True)
class Chunk:
    """Places [start, end) of a sequence, which go through the model in this step."""

    sequence: AnySequence
    start: int
    end: int

    @property
    def is_last(self) -> bool:
        """Whether all places have been read then, so that the next token can be sampled."""
        return self.end == len(self.sequence.places)


@dataclass(frozen=True)
class Step:
    """What goes through one base at once."""

    base: BaseKey
    chunks: tuple[Chunk, ...]

    def without(self, sequences: Container[AnySequence]) -> "Step":
        """Return the step with these sequences left out."""
        return Step(
            self.base, tuple(chunk for chunk in self.chunks if chunk.sequence not in sequences)
        )


class Lane:
    """The sequences of one base: those that wait, and those that run, in order of admission.

    Without a pool prompts are read whole, and what is kept of them is not counted.
    """

    def __init__(self, base: BaseKey, base_bytes: int, pool: BlockPool | None) -> None:
        self.base = base
        self.base_bytes = base_bytes
        self.pool = pool
        self.waiting: FairQueue[AnySequence] = FairQueue(lambda sequence: sequence.flow)
        self.running: list[AnySequence] = []

    @property
    def oldest_arrival(self) -> int:
        return min(sequence.arrival for sequence in self.waiting)


class Scheduler:
    """Holds every sequence from `add` until it is removed.

    `pool_of` makes the cache of a base: None for one that reads its prompts whole. `bytes_of` says
    what a base takes of the memory, with its cache.
    """

    def __init__(
        self,
        limits: Limits,
        pool_of: Callable[[BaseKey], BlockPool | None],
        bytes_of: Callable[[BaseKey], int] = lambda base: 0,
    ) -> None:
        self.limits = limits
        self._pool_of = pool_of
        self._bytes_of = bytes_of
        self._lanes: dict[BaseKey, Lane] = {}
        self._arrivals = count()
        self.preemptions = 0
        self.known_tokens = 0
        """Places that were found in a cache, so that nobody had to read them."""

    @property
    def cache_use(self) -> float:
        """Share of the blocks of all caches that are in use."""
        pools = [lane.pool for lane in self.lanes if lane.pool is not None]
        blocks = sum(pool.blocks for pool in pools)
        return 1 - sum(pool.free for pool in pools) / blocks if blocks else 0.0

    @property
    def lanes(self) -> list[Lane]:
        """Lanes by base, the one whose turn is next first; safe to call from any thread."""
        return list(self._lanes.values())

    @property
    def waiting(self) -> int:
        return sum(len(lane.waiting) for lane in self.lanes)

    @property
    def running(self) -> int:
        return sum(len(lane.running) for lane in self.lanes)

    def can_add(self) -> bool:
        return self.waiting < self.limits.max_waiting

    def add(self, request: AnyRequest) -> list[AnySequence]:
        """Queue every choice or text of a request; call only while `can_add()`.

        The longest of them must fit the cache of its base by itself, and the base the memory.
        """
        base = request.model.base_key
        if base not in self._lanes:
            self._lanes[base] = Lane(base, self._bytes_of(base), self._pool_of(base))
        arrival, lane = next(self._arrivals), self._lanes[base]
        sequences: list[AnySequence] = []
        for index in range(request.sequences):
            first = sequences[0] if sequences and lane.pool is not None else None
            sequences.append(Sequence(request, index, first, arrival))
            lane.waiting.append(sequences[-1])
        return sequences

    def schedule(self) -> Step | None:
        """Return what runs next, None when there is nothing to do.

        Call `advance` with the step when it has run, and only then `schedule` again.
        """
        for base, lane in list(self._lanes.items()):
            chunks = tuple(self._chunks(lane))
            self._lanes[base] = self._lanes.pop(base)  # the next turn is another lane's
            if chunks:
                return Step(base, chunks)
        return None

    def advance(self, step: Step) -> None:
        """Note that a step has run; call it before what was sampled is written."""
        lane = self._lanes[step.base]
        for chunk in step.chunks:
            sequence = chunk.sequence
            lane.waiting.charge(sequence, chunk.end - chunk.start)
            sequence.computed = chunk.end
            if lane.pool is not None and sequence.blocks:
                _note_full_blocks(sequence, lane.pool)
        lane.waiting.forget_idle({sequence.flow for sequence in lane.running})

    def running_sequences(self) -> list[AnySequence]:
        return [sequence for lane in self._lanes.values() for sequence in lane.running]

    def withdraw(self, request: AnyRequest) -> None:
        """Forget what waits of a request; what runs is for the engine to remove."""
        lane = self._lanes.get(request.model.base_key)
        for sequence in list(lane.waiting) if lane is not None else ():
            if sequence.request is request:
                self.remove(sequence)

    def remove(self, sequence: AnySequence) -> None:
        """Take a sequence out, whether it waits or runs; its blocks are free then."""
        lane = self._lanes[sequence.request.model.base_key]
        if sequence in lane.running:
            lane.running.remove(sequence)
            _release(sequence, lane.pool)
        else:
            lane.waiting.take(sequence)

    def drop(self, base: BaseKey) -> None:
        """Forget the lane of a base that is no longer in memory, and what its cache held."""
        lane = self._lanes.get(base)
        if lane is None:
            return
        assert not lane.running, "a base in use has been unloaded"
        if lane.waiting:
            lane.pool = self._pool_of(base)
        else:
            del self._lanes[base]

    def _chunks(self, lane: Lane) -> Iterator[Chunk]:
        budget = self.limits.max_step_tokens
        budget -= sum(_unread(sequence) == 1 for sequence in lane.running)
        # in the order of admission: whoever steps back is the last one, and has no chunk yet
        turn = 0
        while turn < len(lane.running):
            sequence = lane.running[turn]
            turn += 1
            unread = _unread(sequence)
            take = 1 if unread == 1 else self._portion(unread, budget)
            if take and self._make_room(lane, sequence, take):
                budget -= take if unread > 1 else 0
                yield Chunk(sequence, sequence.computed, sequence.computed + take)
        while budget > 0:
            admitted = self._admit(lane, budget)
            if admitted is None:
                return
            budget -= admitted.end - admitted.start
            yield admitted

    def _portion(self, unread: int, budget: int) -> int:
        """Return how many of the unread places of a prompt go into a step with `budget` left.

        A prompt that an eighth of a step more would end is read to its end: a few tokens that are
        left over would cost a step of their own.
        """
        if budget <= 0:
            return 0
        return unread if unread <= budget + self.limits.max_step_tokens // 8 else budget

    def _make_room(self, lane: Lane, sequence: AnySequence, take: int) -> bool:
        """Give a running sequence blocks for `take` more places; False when it had to step back."""
        if lane.pool is None:
            return True
        missing = lane.pool.blocks_for(sequence.computed + take) - len(sequence.blocks)
        while missing > lane.pool.free:
            latest = lane.running.pop()
            _release(latest, lane.pool)
            lane.waiting.put_back(latest)
            self.preemptions += 1
            if latest is sequence:
                return False
        sequence.blocks += lane.pool.allocate(max(0, missing))
        return True

    def _admit(self, lane: Lane, budget: int) -> Chunk | None:
        """Let the next waiting sequence run, if one can; return its first chunk."""
        if not lane.waiting or not self._may_admit(lane):
            return None
        adapters = {sequence.request.model.adapter_sha256 for sequence in lane.running} - {None}
        for sequence in lane.waiting.candidates():
            if not self._is_admissible(lane, sequence):
                continue
            wanted = {sequence.request.model.adapter_sha256} - {None}
            if len(adapters | wanted) > self.limits.max_adapters:
                return None  # it waits for an adapter's place, and nobody overtakes it
            return self._begin(lane, sequence, budget)
        return None

    def _may_admit(self, lane: Lane) -> bool:
        """Say whether there is a place in the batch, and in memory for the base."""
        if self.running >= self.limits.max_sequences:
            return False
        if not lane.running and not self._fits(lane):
            return False
        # a base that waits for its place gets it: the others admit only what came before
        return all(
            lane.oldest_arrival < each.oldest_arrival
            for each in self._lanes.values()
            if each.waiting and not each.running and each is not lane and not self._fits(each)
        )

    def _fits(self, lane: Lane) -> bool:
        """Say whether the base of a lane has a place beside those that run."""
        running = [each for each in self._lanes.values() if each.running]
        taken = sum(each.base_bytes for each in running)
        return (
            len(running) < self.limits.max_bases
            and taken + lane.base_bytes <= self.limits.max_base_bytes
        )

    def _is_admissible(self, lane: Lane, sequence: AnySequence) -> bool:
        """Say whether a sequence can start now; the other choices wait for the first one."""
        first = sequence.first
        return first is None or first.is_finished or first.computed >= first.opening_length

    def _begin(self, lane: Lane, sequence: AnySequence, budget: int) -> Chunk | None:
        """Move a sequence from waiting to running; None when the cache has no room for it."""
        pool, places = lane.pool, sequence.places
        if pool is None:
            take = len(places)  # at once, even if that is more than the budget
        else:
            # the last place is always read, since its state is what the next token comes from
            known = [] if sequence.scores_places else places[:-1]
            found, content = pool.find(sequence.request.model, known)
            held = sum(pool.is_unused(block) for block in found)
            if pool.blocks_for(len(places) + 1) - len(found) > pool.free - held:
                return None
            pool.use(found)
            sequence.blocks, sequence.content, sequence.known_blocks = found, content, len(found)
            sequence.computed = len(found) * pool.block_tokens
            self.known_tokens += sequence.computed
            take = self._portion(len(places) - sequence.computed, budget)
            missing = pool.blocks_for(sequence.computed + take) - len(found)
            sequence.blocks += pool.allocate(missing)
        lane.waiting.take(sequence)
        lane.running.append(sequence)
        return Chunk(sequence, sequence.computed, sequence.computed + take)


def _unread(sequence: AnySequence) -> int:
    return len(sequence.places) - sequence.computed


def _note_full_blocks(sequence: AnySequence, pool: BlockPool) -> None:
    """Tell the pool what the blocks hold that are full by now."""
    size = pool.block_tokens
    while (sequence.known_blocks + 1) * size <= sequence.computed:
        number = sequence.known_blocks
        tokens = sequence.places[number * size : (number + 1) * size]
        sequence.content = pool.hold(sequence.blocks[number], sequence.content, tokens)
        sequence.known_blocks += 1


def _release(sequence: AnySequence, pool: BlockPool | None) -> None:
    """Give the blocks back; what they hold may be found again."""
    if pool is not None:
        pool.release(sequence.blocks)
    sequence.blocks, sequence.computed, sequence.known_blocks = [], 0, 0
    sequence.content = sequence.request.model
