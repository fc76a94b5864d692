"""Who runs next: continuous batching, as plain Python policy without tensors.

Each base that is in memory is a lane, and lanes take turns. A step of a lane first gives every
sequence that writes its next token, then spends what is left of the budget on reading prompts, in
chunks, and then admits. So neither a long prompt nor a stream of new requests keeps a stream
waiting. Sequences join and leave at any step. When the cache is full, the sequence that was
admitted last gives its blocks back and waits again, with all that it has written.

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
        self.prefix_cache_hits = 0
        """Positions found in a cache, so that they were not computed again."""

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
            sequences.append(SequenceState(request, index, first, arrival))
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
            lane.advance(chunk)
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
            lane.release(sequence)
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
        """Yield the chunks of one step of a lane; the budget counts tokens."""
        # 1. Set one token aside for each sequence that writes: no prompt may delay a stream.
        budget = self.limits.max_step_tokens
        budget -= sum(sequence.unread == 1 for sequence in lane.running)
        # 2. Serve what runs, in order of admission. Preemption takes the last sequence of `running`
        #    first, which has no chunk yet; hence the index, as the list may shrink meanwhile.
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
        # 3. Admit waiting sequences with what is left of the budget.
        while budget > 0:
            admitted = self._admit(lane, budget)
            if admitted is None:
                return
            budget -= admitted.end - admitted.start
            yield admitted

    def _portion(self, unread: int, budget: int) -> int:
        """Return how many of the unread positions of a prompt go into a step with `budget` left.

        A prompt that an eighth of a step more would end is read to its end: a few tokens that are
        left over would cost a step of their own.
        """
        if budget <= 0:
            return 0
        return unread if unread <= budget + self.limits.max_step_tokens // 8 else budget

    def _admit(self, lane: Lane, budget: int) -> Chunk | None:
        """Let the next waiting sequence run, if one can; return its first chunk."""
        # 1. The batch must have a free row, and the memory room for the base.
        if not lane.waiting or not self._may_admit(lane):
            return None
        # 2. Take the first sequence of each flow, the flow that was served least first.
        adapters = {sequence.request.model.adapter_sha256 for sequence in lane.running} - {None}
        for sequence in lane.waiting.candidates():
            # 3. Pass over choices whose first choice still reads the prompt they share.
            if not self._is_admissible(sequence):
                continue
            # 4. A sequence whose adapter has no slot waits, and nobody overtakes it: a stream of
            #    requests to the adapters in memory would starve it.
            wanted = {sequence.request.model.adapter_sha256} - {None}
            if len(adapters | wanted) > self.limits.max_adapters:
                return None
            # 5. The same holds for a sequence for which the cache has no room.
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
        # a base that waits for memory gets it: the others admit only what came before
        return all(
            lane.oldest_arrival < each.oldest_arrival
            for each in self._lanes.values()
            if each.waiting and not each.running and each is not lane and not self._fits(each)
        )

    def _fits(self, lane: Lane) -> bool:
        """Return whether the memory has room for the base of a lane beside those that run."""
        running = [each for each in self._lanes.values() if each.running]
        taken = sum(each.base_bytes for each in running)
        return (
            len(running) < self.limits.max_bases
            and taken + lane.base_bytes <= self.limits.max_base_bytes
        )

    @staticmethod
    def _is_admissible(sequence: AnySequence) -> bool:
        """Return whether a sequence can start now; the other choices wait for the first one."""
        first = sequence.first
        return first is None or first.is_finished or first.computed >= first.opening_length
