"""Continuous batching, as plain Python policy without tensors.

Each resident base is a lane, and lanes take turns. A step of a lane first schedules the next token
of every generating sequence, then spends the rest of the budget on chunks of running prompts, and
then on new sequences. So neither a long prompt nor many new requests delay a stream. Sequences join
and leave at any step. If the cache is full, the last admitted sequence is preempted: it releases
its blocks and waits again, with its generated tokens.

Background sequences (batches) are admitted only while no live one waits. They are preempted, the
last admitted first, when a live one lacks a row, cache blocks, an adapter slot, or memory for its
base. `background.py` limits how much they delay live streams. They never join a step that reads a
live prompt.

Source: Yu et al. 2022, https://www.usenix.org/conference/osdi22/presentation/yu (scheduling by
iteration); Agrawal et al. 2024, https://arxiv.org/abs/2403.02310 (chunked prefill).
"""

from collections.abc import Callable
from itertools import count

from core.engine.policy.background import BackgroundShare
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
        self._share = BackgroundShare()
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
        return self.waiting_of(False) + self.waiting_of(True)

    @property
    def running(self) -> int:
        return sum(len(lane.running) for lane in self.lanes)

    @property
    def live_running(self) -> int:
        return sum(lane.live for lane in self.lanes)

    def waiting_of(self, is_background: bool) -> int:
        """Return the number of waiting live sequences, or of those of the background."""
        return sum(len(lane.waiting(is_background)) for lane in self.lanes)

    def can_add(self, is_background: bool = False) -> bool:
        """Return whether the queue has room; that of live requests is always their own."""
        return self.waiting_of(is_background) < self.limits.max_waiting

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
            lane.waiting(request.is_background).append(sequences[-1])
        return sequences

    def schedule(self) -> Step | None:
        """Return the next step, or None if there is nothing to do.

        After the step has run, call `advance` with it before the next `schedule`.
        """
        step = self._next_step(not self._has_live() or self._share.may_join())
        return step or self._next_step(True)

    def advance(self, step: Step, seconds: float = 0.0) -> None:
        """Record that a step has run; call this before its sampled tokens are appended."""
        if self._has_live():
            self._share.note(step, seconds)
        lane = self._lanes[step.base]
        for chunk in step.chunks:
            lane.advance(chunk)
        lane.forget_idle()

    def running_sequences(self) -> list[AnySequence]:
        return [sequence for lane in self._lanes.values() for sequence in lane.running]

    def withdraw(self, request: AnyRequest) -> None:
        """Drop the waiting sequences of a request; the engine removes the running ones."""
        lane = self._lanes.get(request.model.base_key)
        for sequence in lane.all_waiting() if lane is not None else ():
            if sequence.request is request:
                self.remove(sequence)

    def remove(self, sequence: AnySequence) -> None:
        """Remove a waiting or running sequence and release its blocks."""
        lane = self._lanes[sequence.request.model.base_key]
        if sequence in lane.running:
            lane.running.remove(sequence)
            lane.release(sequence)
        else:
            lane.queue_of(sequence).take(sequence)

    def drop(self, base: BaseKey) -> None:
        """Drop the lane of an evicted base, with the contents of its cache."""
        lane = self._lanes.get(base)
        if lane is None:
            return
        assert not lane.running, "a base in use has been unloaded"
        if lane.all_waiting():
            lane.pool = self._pool_of(base)
        else:
            del self._lanes[base]

    def _has_live(self) -> bool:
        return bool(self.live_running or self.waiting_of(False))

    def _next_step(self, with_background: bool) -> Step | None:
        for base, lane in list(self._lanes.items()):
            chunks = tuple(self._chunks(lane, with_background))
            self._lanes[base] = self._lanes.pop(base)  # to the end: the others take their turns
            if chunks:
                return Step(base, chunks)
        return None

    def _chunks(self, lane: Lane, with_background: bool) -> list[Chunk]:
        """Return the chunks of one step of a lane; the budget counts tokens."""
        chunks: list[Chunk] = []
        budget = self._schedule(lane, False, self.limits.max_step_tokens, chunks)
        reads_prompt = any(chunk.end - chunk.start > 1 for chunk in chunks)
        if with_background and not reads_prompt:
            self._schedule(lane, True, budget, chunks)
        return chunks

    def _schedule(self, lane: Lane, is_background: bool, budget: int, chunks: list[Chunk]) -> int:
        """Add the chunks of the live sequences, or of the background; return the budget left."""
        # 1. Reserve one token for each generating sequence, so that no prompt delays a stream.
        budget -= sum(
            sequence.unread == 1
            for sequence in lane.running
            if sequence.is_background == is_background
        )
        # 2. Serve the running sequences in order of admission. Preemption removes the last one of
        #    `running`, which has no chunk yet. Loop by index, because the list may shrink.
        turn = lane.live if is_background else 0
        while turn < len(lane.running) and lane.running[turn].is_background == is_background:
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
                chunks.append(Chunk(sequence, sequence.computed, sequence.computed + take))
        # 3. Admit waiting sequences with the rest of the budget.
        if is_background and self.waiting_of(False):
            return budget
        while budget > 0:
            admitted = self._admit(lane, is_background, budget)
            if admitted is None:
                break
            budget -= admitted.end - admitted.start
            chunks.append(admitted)
        return budget

    def _portion(self, unread: int, budget: int) -> int:
        """Return how many unread positions of a prompt fit into a step with `budget` left.

        The budget may be exceeded by an eighth of a step to finish a prompt, because a few
        remaining tokens would need another step.
        """
        if budget <= 0:
            return 0
        return unread if unread <= budget + self.limits.max_step_tokens // 8 else budget

    def _admit(self, lane: Lane, is_background: bool, budget: int) -> Chunk | None:
        """Admit the next waiting sequence if possible; return its first chunk."""
        # 1. Try the first sequence of each flow, the least served flow first. Skip choices whose
        #    first choice is still reading the shared prompt.
        candidates = lane.waiting(is_background).candidates()
        sequence = next(filter(self._is_admissible, candidates), None)
        if sequence is None or not self._has_turn(lane, is_background):
            return None
        # 2. Make room for a live sequence at the cost of the background. If that is not enough,
        #    admit nothing: otherwise smaller requests could starve this one.
        chunk = self._begin(lane, sequence, budget)
        while chunk is None and not is_background and self._preempt_background(lane):
            chunk = self._begin(lane, sequence, budget)
        return chunk

    def _begin(self, lane: Lane, sequence: AnySequence, budget: int) -> Chunk | None:
        """Start a sequence; None without a row, memory, an adapter slot or room in the cache."""
        if self.running >= self.limits.max_sequences:
            return None
        if not lane.running and not self._fits(lane):
            return None
        adapters = {each.request.model.adapter_sha256 for each in (*lane.running, sequence)}
        if len(adapters - {None}) > self.limits.max_adapters:
            return None
        chunk = lane.begin(sequence, lambda unread: self._portion(unread, budget))
        if chunk is not None:
            self.prefix_cache_hits += chunk.start
        return chunk

    def _preempt_background(self, lane: Lane) -> bool:
        """Preempt a background sequence, of this lane if it has one; False if there is none.

        Only live sequences have chunks of the coming step so far.
        """
        for each in (lane, *self.lanes):
            if each.running and each.running[-1].is_background:
                each.preempt_last()
                self.preemptions += 1
                return True
        return False

    def _has_turn(self, lane: Lane, is_background: bool) -> bool:
        """Return False if an older sequence waits for the memory for another base."""
        return all(
            lane.oldest_arrival(is_background) < each.oldest_arrival(is_background)
            for each in self._lanes.values()
            if each.waiting(is_background) and not each.running
            if each is not lane and not self._fits(each)
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
