"""The memory that a forward pass keeps for the backward pass.

Counted from the code of the layers, per token: a frozen linear layer keeps nothing, an adapted or
trained one its input; a norm keeps its input; attention keeps queries, keys, values and, for short
sequences on a CPU, its probabilities; a gated feed-forward network keeps three inner activations.
`tests/core/planning/test_activations.py` compares with the tensors that autograd really keeps.
"""

from dataclasses import dataclass, replace

from core.planning.block import Block, Pass
from core.planning.run import PlannedRun
from core.spec.strategy import BottleneckSpec, PrefixSpec


@dataclass(frozen=True)
class Activations:
    """Bytes that one pass keeps."""

    blocks: float
    """Of all blocks."""
    largest_block: float
    inputs: float
    """The inputs of all blocks, which is what checkpointing keeps of them."""
    outside: float
    """Of the blocks, while the backward pass goes through them."""
    final_norm: float
    count: int
    """Of blocks that the backward pass goes through."""

    def after_forward(self, checkpointed: bool) -> float:
        """Return the bytes at the end of the forward pass."""
        return (self.inputs if checkpointed else self.blocks) + self.outside + self.final_norm

    def in_backward(self, checkpointed: bool) -> float:
        """Return the bytes in the last block, which checkpointing has recomputed completely."""
        recomputed = self.largest_block if checkpointed else 0
        return self.after_forward(checkpointed) - self.final_norm + recomputed

    def in_first_block(self, checkpointed: bool) -> float:
        """Return the bytes in the first block, where the backward pass ends."""
        kept = self.inputs if checkpointed else self.blocks
        return kept / self.count + (self.largest_block if checkpointed else 0)


def activations(run: PlannedRun, one: Pass) -> Activations:
    """Return what one pass of the run keeps."""
    outline = run.outline
    # an encoder-decoder processes about half of its tokens in each stack
    share = 1 / len(outline.blocks)
    tokens, width = share * one.tokens, outline.width
    block = Block(run, replace(one, tokens=tokens, attended=share * one.attended))
    per_stack = [
        (count, tokens * block.bytes_per_token(stack))
        for stack, count in _trained_blocks(run).items()
    ]
    blocks = sum(count * size for count, size in per_stack)
    count = sum(count for count, _ in per_stack)
    return Activations(
        blocks=blocks - tokens * block.bytes_without_gradient(),
        largest_block=max(size for _, size in per_stack),
        inputs=count * tokens * width * one.itemsize,
        outside=tokens * block.bytes_outside(),
        final_norm=tokens * block.bytes_of_final_norm(),
        count=count,
    )


def _trained_blocks(run: PlannedRun) -> dict[str, int]:
    """Return the number of blocks in each stack that the backward pass goes through."""
    blocks = dict(run.outline.blocks)
    first = next(iter(blocks))
    strategy = run.spec.strategy
    if isinstance(strategy, BottleneckSpec) and strategy.placement == "pfeiffer":
        blocks[first] -= 1  # the first adapter follows the first block
    if isinstance(strategy, PrefixSpec) and len(blocks) > 1:
        blocks[first] = 0  # only the decoder has a prefix
    return blocks
