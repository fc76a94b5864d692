"""The blocks of a key/value cache: their users and their contents.

Plain Python; the tensors belong to the runner. An unused block keeps its content until it is
reallocated, so a later sequence with the same prefix can reuse it. The content of a block includes
its prefix: the same tokens after another prefix are a different content.

Source: Kwon et al. 2023, https://arxiv.org/abs/2309.06180 (paged attention).
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from itertools import count

Content = Hashable
"""Identifies all tokens of a sequence up to the end of a block."""


class OutOfBlocks(Exception):
    """Fewer blocks are free than were requested."""


class BlockPool:
    """`blocks` blocks of `block_tokens` positions each; sequences may share a block."""

    def __init__(self, blocks: int, block_tokens: int) -> None:
        self.blocks = blocks
        self.block_tokens = block_tokens
        self._users = [0] * blocks
        self._unused: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))
        """In the order of reallocation."""
        self._block_of: dict[tuple[Content, tuple[int, ...]], tuple[int, Content]] = {}
        self._key_of: dict[int, tuple[Content, tuple[int, ...]]] = {}
        self._new_content = count()

    @property
    def free(self) -> int:
        """The number of unused blocks."""
        return len(self._unused)

    def blocks_for(self, tokens: int) -> int:
        """Return the number of blocks for `tokens` tokens."""
        return -(-tokens // self.block_tokens)

    def find(self, root: Content, tokens: Sequence[int]) -> tuple[list[int], Content]:
        """Return the blocks of the longest cached prefix of `tokens`, and its content.

        `root` is the content before the first token; it differs between models, whose keys and
        values differ. Call `use` on the blocks before the next allocation, which could take them.
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
        """Add a user to each block."""
        for block in blocks:
            self._users[block] += 1
            self._unused.pop(block, None)

    def allocate(self, number: int) -> list[int]:
        """Return `number` blocks for one user and discard their contents, or raise OutOfBlocks."""
        if number > self.free:
            raise OutOfBlocks(f"{number} blocks were requested; {self.free} are free.")
        taken = [self._unused.popitem(last=False)[0] for _ in range(number)]
        for block in taken:
            self._users[block] = 1
            key = self._key_of.pop(block, None)
            if key is not None:
                del self._block_of[key]
        return taken

    def hold(self, block: int, before: Content, tokens: Sequence[int]) -> Content:
        """Record that a used block has `tokens` after `before`; return its content.

        If another block already has this content, `find` keeps returning that one.
        """
        key = before, tuple(tokens)
        if key not in self._block_of:
            self._block_of[key] = block, next(self._new_content)
            self._key_of[block] = key
        return self._block_of[key][1]

    def release(self, blocks: Sequence[int]) -> None:
        """Remove a user from each block of a sequence.

        The last blocks are reallocated first, because prefixes are reused more often.
        """
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block] == 0:
                self._unused[block] = None
                if block not in self._key_of:
                    self._unused.move_to_end(block, last=False)
