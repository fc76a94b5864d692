"""The operations that a pass launches, which take most of the time of a small model.

Counted on models in miniature: `tests/core/planning/test_operations.py` counts them again.
"""

from core.planning.run import PlannedRun
from core.spec.strategy import BottleneckSpec, Ia3Spec, LowRankSpec, PrefixSpec

OF_A_BLOCK: dict[str, float] = {
    "llama": 99,
    "mistral": 99,
    "qwen2": 99,
    "qwen3": 135,
    "gemma2": 139,
    "gemma3_text": 177,
    "phi3": 101,
    "gpt2": 47,
    "bert": 35,
    "modernbert": 55,
    "t5": 77.5,
    "bart": 34,
}
"""Forward and backward, of frozen weights; the mean of encoder and decoder."""

OF_A_SEQUENCE: dict[str, float] = {"gemma2": 17, "bert": 10, "modernbert": 10, "t5": 0, "bart": 0}
"""Of its attention in each block; of padded families among the others."""
OF_A_USUAL_SEQUENCE = 11
OF_A_PREFIX = 4
"""More of each sequence."""

OF_LOW_RANK, OF_DORA, OF_IA3, OF_A_BOTTLENECK = 10, 31, 4, 14
"""More of each layer that is adapted, or of each adapter."""

OF_A_TRAINED_NORM = 2
OF_A_TRAINED_POSITION_BIAS = 22

FORWARD_SHARE = 0.4
"""Of the operations of a block."""

OUTSIDE = 60
"""The embeddings, the loss and the optimizer."""


def operations_of_pass(run: PlannedRun, sequences: float) -> float:
    """Return the operations of one forward and backward pass over some sequences."""
    kind, strategy = run.family.model_type, run.spec.strategy
    blocks = sum(run.outline.blocks.values())
    passed = float(blocks)
    if isinstance(strategy, BottleneckSpec) and strategy.placement == "pfeiffer":
        passed -= 1 - FORWARD_SHARE  # no gradient passes the first adapter, behind the first block
    of_sequence = OF_A_SEQUENCE.get(kind, OF_A_USUAL_SEQUENCE)
    if of_sequence and isinstance(strategy, PrefixSpec):
        of_sequence += OF_A_PREFIX
    of_blocks = passed * (OF_A_BLOCK[kind] + sequences * of_sequence)
    return OUTSIDE + of_blocks + _added(run, blocks)


def _added(run: PlannedRun, blocks: int) -> float:
    """Return the operations that the trained weights add in all blocks."""
    strategy, adapted = run.spec.strategy, len(run.trained.adapted)
    if run.trained.everything:
        return _of_trained_weights(run, blocks)
    match strategy:
        case LowRankSpec():
            return adapted * (OF_DORA if strategy.use_dora else OF_LOW_RANK)
        case Ia3Spec():
            return adapted * OF_IA3
        case BottleneckSpec():
            return blocks * OF_A_BOTTLENECK * (2 if strategy.placement == "houlsby" else 1)
        case _:
            return 0.0


def _of_trained_weights(run: PlannedRun, blocks: int) -> float:
    """One for the gradient of each matrix and bias; a norm that PyTorch lacks has two."""
    linear = run.outline.linear
    biases = sum(f"{path}.bias" in run.outline.weights for path in linear)
    is_own_norm = run.family.model_type not in ("gpt2", "bert", "modernbert", "bart")
    others = sum(
        name.removesuffix(".weight") not in linear and "norm" in name.lower()
        for name in run.outline.weights
    )
    norms = OF_A_TRAINED_NORM * others if is_own_norm else 0
    bias = OF_A_TRAINED_POSITION_BIAS * blocks if run.family.model_type == "t5" else 0
    return len(linear) + biases + norms + bias
