"""The computation of a step: products, bytes moved, operations."""

from dataclasses import dataclass

from core.planning.activations import activations
from core.planning.block import Pass
from core.planning.operations import FORWARD_SHARE, operations_of_pass
from core.planning.outline import LinearShape
from core.planning.run import DeviceKind, PlannedRun, itemsize
from core.spec.precision import NumberFormat
from core.spec.strategy import LowRankSpec

TRAVERSALS = 20.0
"""How often a step moves each kept value: itself, intermediate values that are not kept, and their
gradients. Fitted to measured runs on a CPU, like the time of an operation."""

LOGIT_TRAVERSALS = 27.0
"""The same for each logit: product, maximum, softmax, gradient."""

DEQUANTIZED_BYTES = 30.0
"""Moved for a quantized weight each time it is made dense."""

OPTIMIZER_BYTES = 28.0
"""Moved per trained weight in a step: weight, gradient and two moments read, three written."""

OPERATION_UNITS = 15.0
"""The time of an operation of a pass, with its views and its part of autograd, as a multiple of the
shortest operation."""


@dataclass(frozen=True)
class StepCost:
    """The work of an average optimizer step."""

    products: tuple[tuple[float, float], ...]
    """(operations of one product, number of such products)."""
    moved_bytes: float
    operations: float
    """Launched on the device, in units of the shortest one."""

    @property
    def flops(self) -> float:
        return sum(size * count for size, count in self.products)


def step_cost(
    run: PlannedRun, precision: NumberFormat, device: DeviceKind, *, checkpointed: bool
) -> StepCost:
    """Return the cost of a step with the mean number of tokens.

    On a CPU, values of 16 bits take the time of 32 bits in everything but products.
    """
    passes = run.passes_per_step
    per_sequence = run.workload.mean_tokens / run.workload.sequences_per_row
    tokens = run.tokens_per_step * (1 + run.added_tokens / per_sequence) / passes
    sequences = run.tokens_per_step / per_sequence
    one = Pass(tokens, run.workload.attended + run.added_tokens, precision, device)
    products = [
        *_blocks(run, tokens, checkpointed),
        *_attention(run, one, checkpointed),
        *_head(run, tokens),
    ]
    kept = activations(run, one)
    logits = 0.0 if _is_classifier(run) else tokens * run.workload.labelled_share * _vocabulary(run)
    size = itemsize(precision)
    widened = 4 / size if device == "cpu" else 1
    moved = passes * (
        TRAVERSALS * widened * kept.after_forward(False) * (1.5 if checkpointed else 1)
        + LOGIT_TRAVERSALS * widened * logits * size
        + DEQUANTIZED_BYTES * _dequantized(run) * (3 if checkpointed else 2)
    )
    operations = passes * OPERATION_UNITS * operations_of_pass(run, sequences / passes)
    return StepCost(
        products=tuple((size, passes * count) for size, count in products),
        moved_bytes=moved + OPTIMIZER_BYTES * run.counts.trainable,
        operations=operations * (1 + FORWARD_SHARE if checkpointed else 1),
    )


def _blocks(run: PlannedRun, tokens: float, checkpointed: bool) -> list[tuple[float, float]]:
    """Each linear layer: forward, the gradient of its input, and that of its weight if trained."""
    stacks = len(run.outline.blocks)
    products: list[tuple[float, float]] = []
    for path, layer in run.outline.linear.items():
        if path.partition(".")[0] in run.family.head:
            continue
        rows = tokens / stacks
        size = 2 * rows * layer.inputs * layer.outputs
        count = (2 if checkpointed else 1) + 1
        products.append((size, count + (1 if run.trained.everything else 0)))
        products += _low_rank(run, path, layer, rows, checkpointed)
    return products


def _low_rank(
    run: PlannedRun, path: str, layer: LinearShape, rows: float, checkpointed: bool
) -> list[tuple[float, float]]:
    strategy = run.spec.strategy
    if not isinstance(strategy, LowRankSpec) or path not in run.trained.adapted:
        return []
    count = (2 if checkpointed else 1) + 2
    return [
        (2 * rows * strategy.rank * layer.inputs, count),
        (2 * rows * strategy.rank * layer.outputs, count),
    ]


def _attention(run: PlannedRun, one: Pass, checkpointed: bool) -> list[tuple[float, float]]:
    shape, blocks = run.outline.attention, sum(run.outline.blocks.values())
    per_sequence = 2 * one.attended**2 * shape.heads * shape.head_size
    sequences = one.tokens / one.attended / len(run.outline.blocks)
    # two products forward, four backward
    return [(per_sequence, blocks * sequences * (8 if checkpointed else 6))]


def _head(run: PlannedRun, tokens: float) -> list[tuple[float, float]]:
    """The logits and the gradients of the states, and of the matrix if it is trained."""
    if _is_classifier(run):
        return []
    labelled = tokens * run.workload.labelled_share
    size = 2 * labelled * run.outline.width * _vocabulary(run)
    return [(size, 3 if run.trained.everything else 2)]


def _dequantized(run: PlannedRun) -> int:
    """Return the weights that each product makes dense."""
    if run.quantization is None:
        return 0
    return sum(layer.inputs * layer.outputs for layer in run.outline.linear.values())


def _is_classifier(run: PlannedRun) -> bool:
    return run.spec.task == "classification"


def _vocabulary(run: PlannedRun) -> int:
    return run.fields.size("vocab_size")
