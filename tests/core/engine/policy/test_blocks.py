"""What the pool of blocks promises, whatever is allocated, found, released and forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.engine.policy.blocks import BlockPool, OutOfBlocks

SIZE = 2
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=9)


def fill(pool: BlockPool, tokens: list[int], root: str = "model") -> list[int]:
    """Do what a sequence does: find, use, allocate the rest, and say what the full ones hold."""
    blocks, content = pool.find(root, tokens)
    pool.use(blocks)
    known = len(blocks)
    blocks += pool.allocate(pool.blocks_for(len(tokens)) - known)
    for number in range(known, len(tokens) // SIZE):
        content = pool.hold(blocks[number], content, tokens[number * SIZE : number * SIZE + SIZE])
    return blocks


class PoolMachine(RuleBasedStateMachine):
    """Sequences come and go; a plain dictionary remembers what was written into which block."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(6, SIZE)
        self.written: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.sequences: list[list[int]] = []

    @rule(tokens=TOKENS, root=st.sampled_from(["a", "b"]))
    def begin(self, tokens: list[int], root: str) -> None:
        found, content = self.pool.find(root, tokens)
        for number, block in enumerate(found):
            assert self.written[block] == (root, tuple(tokens[: number * SIZE + SIZE]))
        missing = self.pool.blocks_for(len(tokens)) - len(found)
        unused = sum(self.pool.is_unused(block) for block in found)
        if missing > self.pool.free - unused:
            return
        self.pool.use(found)
        blocks = found + self.pool.allocate(missing)
        for number in range(len(tokens) // SIZE):
            beginning = tokens[: number * SIZE + SIZE]
            if number >= len(found):
                content = self.pool.hold(blocks[number], content, beginning[-SIZE:])
                self.written[blocks[number]] = root, tuple(beginning)
        for block in blocks[len(tokens) // SIZE :]:
            self.written.pop(block, None)
        self.sequences.append(blocks)

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.sequences) - 1))
        self.pool.release(self.sequences.pop(index))

    @invariant()
    def blocks_in_use_are_not_free(self) -> None:
        used = {block for blocks in self.sequences for block in blocks}
        assert self.pool.free == self.pool.blocks - len(used)
        assert not any(self.pool.is_unused(block) for block in used)


TestPool = PoolMachine.TestCase


def test_a_beginning_is_found_after_its_sequence_has_gone() -> None:
    pool = BlockPool(4, SIZE)
    blocks = fill(pool, [1, 2, 3, 4, 5])
    pool.release(blocks)
    assert pool.find("model", [1, 2, 3, 4, 9])[0] == blocks[:2]
    assert pool.find("model", [1, 2, 9])[0] == blocks[:1]
    assert pool.find("another model", [1, 2, 3, 4])[0] == []
    assert pool.find("model", [3, 4])[0] == [], "the same tokens elsewhere are something else"


def test_the_end_of_a_text_is_forgotten_before_its_beginning() -> None:
    pool = BlockPool(3, SIZE)
    blocks = fill(pool, [1, 2, 3, 4, 5, 6])
    pool.release(blocks)
    pool.allocate(1)
    assert pool.find("model", [1, 2, 3, 4, 5, 6])[0] == blocks[:2]


def test_what_two_sequences_wrote_at_once_is_known_once() -> None:
    pool = BlockPool(4, SIZE)
    first, second = pool.allocate(1), pool.allocate(1)
    content = pool.hold(first[0], "model", [1, 2])
    assert pool.hold(second[0], "model", [1, 2]) == content
    assert pool.find("model", [1, 2])[0] == first


def test_more_than_there_is_cannot_be_had() -> None:
    pool = BlockPool(2, SIZE)
    pool.allocate(1)
    with pytest.raises(OutOfBlocks, match="2 blocks were requested; 1 are free"):
        pool.allocate(2)
    assert pool.free == 1


@given(st.integers(0, 100), st.integers(1, 9))
def test_blocks_for_tokens(tokens: int, size: int) -> None:
    blocks = BlockPool(1, size).blocks_for(tokens)
    assert (blocks - 1) * size < tokens <= blocks * size or (tokens == blocks == 0)
