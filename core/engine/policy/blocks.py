"""The blocks of a key/value cache by number: who uses them, and what they still hold.

Plain Python; the tensors belong to the runner. A block that nobody uses keeps its content until it
is given away, so that a later sequence with the same beginning need not compute it again. Contents
form chains: the same tokens after another beginning are another content.

Source: Kwon et al. 2023, https://arxiv.org/abs/2309.06180 (paged attention).
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from itertools import count

Content = Hashable
"""Stands for all tokens from the first of a sequence to the last of a block."""


class OutOfBlocks(Exception):
    """Fewer blocks are free than were asked for."""


class BlockPool:
    """`blocks` blocks of `block_tokens` positions each; a block may serve several sequences."""

    def __init__(self, blocks: int, block_tokens: int) -> None:
        self.blocks = blocks
        self.block_tokens = block_tokens
        self._users = [0] * blocks
        self._unused: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))
        """In the order in which they are given away."""
        self._block_of: dict[tuple[Content, tuple[int, ...]], tuple[int, Content]] = {}
        self._key_of: dict[int, tuple[Content, tuple[int, ...]]] = {}
        self._new_content = count()

    @property
    def free(self) -> int:
        """Blocks that nobody uses."""
        return len(self._unused)

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks so many tokens take."""
        return -(-tokens // self.block_tokens)

    def find(self, root: Content, tokens: Sequence[int]) -> tuple[list[int], Content]:
        """Return the blocks that hold the longest known beginning of `tokens`, and that content.

        `root` stands for what comes before the first token: keys and values of different models
        are different. The blocks are not yet used: `use` them before anything is allocated.
        """
        found: list[int] = []
        content = root
        for start in range(0, len(tokens) - self.block_tokens + 1, self.block_tokens):
            known = self._block_of.get((content, tuple(tokens[start : start + self.block_tokens])))
            if known is None:
                break
            block, content = known
            found.append(block)
        return found, content

    def is_unused(self, block: int) -> bool:
        return block in self._unused

    def use(self, blocks: Iterable[int]) -> None:
        """Count one more user of each block."""
        for block in blocks:
            self._users[block] += 1
            self._unused.pop(block, None)

    def allocate(self, number: int) -> list[int]:
        """Return so many blocks for one user, forgetting what they held; or raise OutOfBlocks."""
        if number > self.free:
            raise OutOfBlocks(f"{number} blocks were asked for and {self.free} are free.")
        taken = [self._unused.popitem(last=False)[0] for _ in range(number)]
        for block in taken:
            self._users[block] = 1
            key = self._key_of.pop(block, None)
            if key is not None:
                del self._block_of[key]
        return taken

    def hold(self, block: int, before: Content, tokens: Sequence[int]) -> Content:
        """Note that a used block now holds `tokens` after `before`; return the content it ends.

        Where another block holds the same already, that one stays the known one.
        """
        key = before, tuple(tokens)
        if key not in self._block_of:
            self._block_of[key] = block, next(self._new_content)
            self._key_of[block] = key
        return self._block_of[key][1]

    def release(self, blocks: Sequence[int]) -> None:
        """Count one user less of each block of a sequence.

        The last ones are given away first: a beginning is worth more than what follows it.
        """
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block] == 0:
                self._unused[block] = None
                if block not in self._key_of:
                    self._unused.move_to_end(block, last=False)
