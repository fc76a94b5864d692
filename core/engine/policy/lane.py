"""The sequences of one base and their cache blocks."""

from collections.abc import Callable

from core.engine.policy.blocks import BlockPool
from core.engine.policy.fair_queue import FairQueue
from core.engine.policy.request import AnySequence, BaseKey
from core.engine.policy.step import Chunk


class Lane:
    """Waiting and running sequences.

    Live sequences run before those of the background, both in order of admission. So the last of
    `running`, which is preempted first, is a live one only if there is no other. Without a pool,
    prompts are read in one step and the cache is not counted.
    """

    def __init__(self, base: BaseKey, base_bytes: int, pool: BlockPool | None) -> None:
        self.base = base
        self.base_bytes = base_bytes
        self.pool = pool
        self._queues: dict[bool, FairQueue[AnySequence]] = {
            is_background: FairQueue(lambda sequence: sequence.flow)
            for is_background in (False, True)
        }
        self.running: list[AnySequence] = []

    def waiting(self, is_background: bool) -> FairQueue[AnySequence]:
        """Return the queue of live sequences, or that of the background."""
        return self._queues[is_background]

    @property
    def live(self) -> int:
        """The number of running live sequences, which come first."""
        return sum(not sequence.is_background for sequence in self.running)

    def all_waiting(self) -> list[AnySequence]:
        return [sequence for queue in self._queues.values() for sequence in queue]

    def queue_of(self, sequence: AnySequence) -> FairQueue[AnySequence]:
        return self._queues[sequence.is_background]

    def oldest_arrival(self, is_background: bool) -> int:
        return min(sequence.arrival for sequence in self._queues[is_background])

    def begin(self, sequence: AnySequence, portion: Callable[[int], int]) -> Chunk | None:
        """Move a sequence from waiting to running; None if the cache has no room for it.

        `portion` maps its unread positions to those of this step.
        """
        if self.pool is None:
            take = len(sequence.all_tokens)  # in one step, even beyond the budget
        else:
            # 1. Find the longest cached prefix, F full blocks. The last position is always
            #    computed, because the next token is sampled from its state. A scored prompt needs
            #    the state of every position, so it does not use the cache.
            lookup = [] if sequence.scores_prompt else sequence.all_tokens[:-1]
            found, content = self.pool.find(sequence.request.model, lookup)
            # 2. Admit only if all positions and the first output token fit now, or the new sequence
            #    would be preempted at once. Unused blocks among the F count as free until this
            #    sequence uses them.
            missing = self.pool.blocks_for(len(sequence.all_tokens) + 1) - len(found)
            if missing > self.pool.free - sum(map(self.pool.is_unused, found)):
                return None
            # 3. Use the F blocks before the allocation, which could take them. Their
            #    F · block_tokens positions count as computed.
            self.pool.use(found)
            sequence.blocks, sequence.content, sequence.known_blocks = found, content, len(found)
            sequence.computed = len(found) * self.pool.block_tokens
            # 4. Allocate for this step only: later chunks and tokens allocate their own blocks.
            take = portion(sequence.unread)
            missing = self.pool.blocks_for(sequence.computed + take) - len(found)
            sequence.blocks += self.pool.allocate(missing)
        self.queue_of(sequence).take(sequence)
        self.running.insert(len(self.running) if sequence.is_background else self.live, sequence)
        return Chunk(sequence, sequence.computed, sequence.computed + take)

    def make_room(self, sequence: AnySequence, take: int) -> list[AnySequence]:
        """Allocate blocks for `take` more positions of a running sequence; return the preempted.

        The last of `running` is preempted first; it may be this one.
        """
        preempted: list[AnySequence] = []
        if self.pool is None:
            return preempted
        missing = self.pool.blocks_for(sequence.computed + take) - len(sequence.blocks)
        while missing > self.pool.free:
            preempted.append(self.preempt_last())
            if preempted[-1] is sequence:
                return preempted
        sequence.blocks += self.pool.allocate(max(0, missing))
        return preempted

    def preempt_last(self) -> AnySequence:
        """Move the last running sequence to the front of its queue, with its generated tokens."""
        latest = self.running.pop()
        self.release(latest)
        self.queue_of(latest).put_back(latest)
        return latest

    def advance(self, chunk: Chunk) -> None:
        """Record that a chunk has been computed, and the contents of the blocks it completed."""
        sequence = chunk.sequence
        self.queue_of(sequence).charge(sequence, chunk.end - chunk.start)
        sequence.computed = chunk.end
        if self.pool is None or not sequence.blocks:
            return
        size = self.pool.block_tokens
        while (sequence.known_blocks + 1) * size <= sequence.computed:
            number = sequence.known_blocks
            tokens = sequence.all_tokens[number * size : (number + 1) * size]
            sequence.content = self.pool.hold(sequence.blocks[number], sequence.content, tokens)
            sequence.known_blocks += 1

    def release(self, sequence: AnySequence) -> None:
        """Release the blocks of a sequence; their contents stay cached."""
        if self.pool is not None:
            self.pool.release(sequence.blocks)
        sequence.blocks, sequence.computed, sequence.known_blocks = [], 0, 0
        sequence.content = sequence.request.model

    def forget_idle(self) -> None:
        """Drop the counts of service of flows without sequences."""
        active = {sequence.flow for sequence in self.running}
        for queue in self._queues.values():
            queue.forget_idle(active)
