"""Continuous batching, as plain Python policy without tensors.

Each resident base is a lane, and lanes take turns. A step of a lane first schedules the next token
of every generating sequence, then spends the rest of the budget on chunks of running prompts, and
then on new sequences. So neither a long prompt nor many new requests delay a stream. Sequences join
and leave at any step. If the cache is full, the last admitted sequence is preempted: it releases
its blocks and waits again, with its generated tokens.

Source: Yu et al. 2022, https://www.usenix.org/conference/osdi22/presentation/yu (scheduling by
iteration); Agrawal et al. 2024, https://arxiv.org/abs/2403.02310 (chunked prefill).
"""

from collections.abc import Callable, Iterator
from itertools import count

from core.engine.policy.blocks import BlockPool
from core.engine.policy.lane import Lane
from core.engine.policy.request import AnyRequest, AnySequence, BaseKey, SequenceState
from core.engine.policy.step import Chunk, Limits, Step


class Scheduler:
    """Owns every sequence from `add` until it is removed.

    `pool_of` creates the block pool of a base; None if the base reads prompts in one step.
    `bytes_of` returns the memory of a base with its cache.
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
        self.prefix_cache_hits = 0
        """The number of positions found in a cache, and not recomputed."""

    @property
    def cache_use(self) -> float:
        """The share of used blocks in all caches."""
        pools = [lane.pool for lane in self.lanes if lane.pool is not None]
        blocks = sum(pool.blocks for pool in pools)
        return 1 - sum(pool.free for pool in pools) / blocks if blocks else 0.0

    @property
    def lanes(self) -> list[Lane]:
        """The lanes in the order of their turns; thread-safe."""
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

        Each of them must fit into an empty cache of its base, and the base into the memory.
        """
        base = request.model.base_key
        if base not in self._lanes:
            self._lanes[base] = Lane(base, self._bytes_of(base), self._pool_of(base))
        arrival, lane = next(self._arrivals), self._lanes[base]
        sequences: list[AnySequence] = []
        for index in range(request.sequences):
            first = sequences[0] if sequences and lane.pool is not None else None
            sequences.append(SequenceState(request, index, first, arrival))
            lane.waiting.append(sequences[-1])
        return sequences

    def schedule(self) -> Step | None:
        """Return the next step, or None if there is nothing to do.

        After the step has run, call `advance` with it before the next `schedule`.
        """
        for base, lane in list(self._lanes.items()):
            chunks = tuple(self._chunks(lane))
            self._lanes[base] = self._lanes.pop(base)  # to the end: the others take their turns
            if chunks:
                return Step(base, chunks)
        return None

    def advance(self, step: Step) -> None:
        """Record that a step has run; call this before its sampled tokens are appended."""
        lane = self._lanes[step.base]
        for chunk in step.chunks:
            lane.advance(chunk)
        lane.waiting.forget_idle({sequence.flow for sequence in lane.running})

    def running_sequences(self) -> list[AnySequence]:
        return [sequence for lane in self._lanes.values() for sequence in lane.running]

    def withdraw(self, request: AnyRequest) -> None:
        """Drop the waiting sequences of a request; the engine removes the running ones."""
        lane = self._lanes.get(request.model.base_key)
        for sequence in list(lane.waiting) if lane is not None else ():
            if sequence.request is request:
                self.remove(sequence)

    def remove(self, sequence: AnySequence) -> None:
        """Remove a waiting or running sequence and release its blocks."""
        lane = self._lanes[sequence.request.model.base_key]
        if sequence in lane.running:
            lane.running.remove(sequence)
            lane.release(sequence)
        else:
            lane.waiting.take(sequence)

    def drop(self, base: BaseKey) -> None:
        """Drop the lane of an evicted base, with the contents of its cache."""
        lane = self._lanes.get(base)
        if lane is None:
            return
        assert not lane.running, "a base in use has been unloaded"
        if lane.waiting:
            lane.pool = self._pool_of(base)
        else:
            del self._lanes[base]

    def _chunks(self, lane: Lane) -> Iterator[Chunk]:
        """Yield the chunks of one step of a lane; the budget counts tokens."""
        # 1. Reserve one token for each generating sequence, so that no prompt delays a stream.
        budget = self.limits.max_step_tokens
        budget -= sum(sequence.unread == 1 for sequence in lane.running)
        # 2. Serve the running sequences in order of admission. Preemption removes the last one of
        #    `running`, which has no chunk yet. Loop by index, because the list may shrink.
        turn = 0
        while turn < len(lane.running):
            sequence = lane.running[turn]
            turn += 1
            unread = sequence.unread
            take = 1 if unread == 1 else self._portion(unread, budget)
            if take == 0:
                continue
            preempted = lane.make_room(sequence, take)
            self.preemptions += len(preempted)
            if sequence not in preempted:
                budget -= take if unread > 1 else 0
                yield Chunk(sequence, sequence.computed, sequence.computed + take)
        # 3. Admit waiting sequences with the rest of the budget.
        while budget > 0:
            admitted = self._admit(lane, budget)
            if admitted is None:
                return
            budget -= admitted.end - admitted.start
            yield admitted

    def _portion(self, unread: int, budget: int) -> int:
        """Return how many unread positions of a prompt fit into a step with `budget` left.

        The budget may be exceeded by an eighth of a step to finish a prompt, because a few
        remaining tokens would need another step.
        """
        if budget <= 0:
            return 0
        return unread if unread <= budget + self.limits.max_step_tokens // 8 else budget

    def _admit(self, lane: Lane, budget: int) -> Chunk | None:
        """Admit the next waiting sequence if possible; return its first chunk."""
        # 1. The batch needs a free row, and the memory room for the base.
        if not lane.waiting or not self._may_admit(lane):
            return None
        # 2. Try the first sequence of each flow, the least served flow first.
        adapters = {sequence.request.model.adapter_sha256 for sequence in lane.running} - {None}
        for sequence in lane.waiting.candidates():
            # 3. Skip choices whose first choice is still reading the shared prompt.
            if not self._is_admissible(sequence):
                continue
            # 4. If there is no slot for the adapter, admit nothing: otherwise requests to resident
            #    adapters could starve this sequence.
            wanted = {sequence.request.model.adapter_sha256} - {None}
            if len(adapters | wanted) > self.limits.max_adapters:
                return None
            # 5. The same applies if the cache has no room.
            chunk = lane.begin(sequence, lambda unread: self._portion(unread, budget))
            if chunk is not None:
                self.prefix_cache_hits += chunk.start
            return chunk
        return None

    def _may_admit(self, lane: Lane) -> bool:
        """Return whether the batch has a free row, and the memory room for the base."""
        if self.running >= self.limits.max_sequences:
            return False
        if not lane.running and not self._fits(lane):
            return False
        # other lanes admit nothing newer than a base that waits for memory, so it gets its turn
        return all(
            lane.oldest_arrival < each.oldest_arrival
            for each in self._lanes.values()
            if each.waiting and not each.running and each is not lane and not self._fits(each)
        )

    def _fits(self, lane: Lane) -> bool:
        """Return whether the memory has room for the base beside the bases in use."""
        running = [each for each in self._lanes.values() if each.running]
        taken = sum(each.base_bytes for each in running)
        return (
            len(running) < self.limits.max_bases
            and taken + lane.base_bytes <= self.limits.max_base_bytes
        )

    @staticmethod
    def _is_admissible(sequence: AnySequence) -> bool:
        """Return whether a sequence can start; later choices wait for the first choice."""
        first = sequence.first
        return first is None or first.is_finished or first.computed >= first.opening_length
