"""The sequences of one base, and their blocks of its cache."""

from collections.abc import Callable

from core.engine.policy.blocks import BlockPool
from core.engine.policy.fair_queue import FairQueue
from core.engine.policy.request import AnySequence, BaseKey
from core.engine.policy.step import Chunk


class Lane:
    """Sequences that wait, and those that run, in order of admission.

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

    def begin(self, sequence: AnySequence, portion: Callable[[int], int]) -> Chunk | None:
        """Move a sequence from waiting to running; None when the cache has no room for it.

        `portion` says how many of its unread positions go into this step.
        """
        if self.pool is None:
            take = len(sequence.all_tokens)  # at once, even if that is more than the budget
        else:
            # 1. Look up the longest beginning that the cache holds, as F full blocks. The last
            #    position is always read: the next token is sampled from its state. A prompt that is
            #    scored needs the state of every position, so nothing is looked up for it.
            lookup = [] if sequence.scores_prompt else sequence.all_tokens[:-1]
            found, content = self.pool.find(sequence.request.model, lookup)
            # 2. Admit only if all positions and the first token of the answer fit now: a new
            #    sequence must not be preempted at once. Of the F found blocks, those that nobody
            #    uses count as free, and stop doing so as soon as this sequence uses them.
            missing = self.pool.blocks_for(len(sequence.all_tokens) + 1) - len(found)
            if missing > self.pool.free - sum(map(self.pool.is_unused, found)):
                return None
            # 3. Claim the found blocks before anything is allocated, which could give them away.
            #    Their F · block_tokens positions count as computed.
            self.pool.use(found)
            sequence.blocks, sequence.content, sequence.known_blocks = found, content, len(found)
            sequence.computed = len(found) * self.pool.block_tokens
            # 4. Allocate for this step's portion only: later chunks and tokens ask for their own.
            take = portion(sequence.unread)
            missing = self.pool.blocks_for(sequence.computed + take) - len(found)
            sequence.blocks += self.pool.allocate(missing)
        self.waiting.take(sequence)
        self.running.append(sequence)
        return Chunk(sequence, sequence.computed, sequence.computed + take)

    def make_room(self, sequence: AnySequence, take: int) -> list[AnySequence]:
        """Give a running sequence blocks for `take` more positions; return those that stepped back.

        The sequence that was admitted last steps back first, which may be this one.
        """
        preempted: list[AnySequence] = []
        if self.pool is None:
            return preempted
        missing = self.pool.blocks_for(sequence.computed + take) - len(sequence.blocks)
        while missing > self.pool.free:
            latest = self.running.pop()
            self.release(latest)
            self.waiting.put_back(latest)
            preempted.append(latest)
            if latest is sequence:
                return preempted
        sequence.blocks += self.pool.allocate(max(0, missing))
        return preempted

    def advance(self, chunk: Chunk) -> None:
        """Note that a chunk has been read, and what the blocks hold that are full by now."""
        sequence = chunk.sequence
        self.waiting.charge(sequence, chunk.end - chunk.start)
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
        """Give the blocks of a sequence back; what they hold may be found again."""
        if self.pool is not None:
            self.pool.release(sequence.blocks)
        sequence.blocks, sequence.computed, sequence.known_blocks = [], 0, 0
        sequence.content = sequence.request.model
