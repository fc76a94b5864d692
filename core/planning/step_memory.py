"""The memory that comes and goes in a step: activations, the loss head, gradients inside."""

from dataclasses import dataclass

from core.planning.activations import activations
from core.planning.block import WIDE, Pass, is_gated
from core.planning.loss_head import loss_head
from core.planning.run import DeviceKind, PlannedRun
from core.spec.precision import NumberFormat
from core.spec.strategy import Ia3Spec


@dataclass(frozen=True)
class Device:
    """What of a worker's device determines the memory of a run."""

    kind: DeviceKind
    native_bf16: bool
    runtime_bytes: int
    """Of a training child before it loads anything: its imports, and on a GPU the CUDA context."""


def largest_pass(run: PlannedRun, device: Device, precision: NumberFormat) -> Pass:
    tokens = run.tokens_of_largest_pass
    attended = run.workload.attended + run.added_tokens
    if tokens <= 2 * run.workload.longest_tokens:
        attended = run.workload.longest_sequence + run.added_tokens
    if device.kind == "cpu" and precision == "bf16" and device.native_bf16:
        # padded to few lengths
        padding = (attended + 16) / attended
        return Pass(tokens + 32, attended + 16, precision, "cpu", padding)
    return Pass(tokens, attended, precision, device.kind)


def multiplies_in_fp32(device: Device, precision: NumberFormat) -> bool:
    return device.kind == "cpu" and (precision == "fp32" or not device.native_bf16)


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a step beside the gradients that it ends with."""

    activations: int
    loss_head: int

    @property
    def total(self) -> int:
        return self.activations + self.loss_head


def step_memory(
    run: PlannedRun,
    device: Device,
    precision: NumberFormat,
    gradients: int,
    *,
    checkpointed: bool,
) -> StepMemory:
    """Return the memory of the largest pass in its phase with the most of it.

    The phases: the loss, at the end of the forward pass; the backward pass in the last block; in
    the first one, where the gradients of all others exist; its end, where they are complete.
    Gradients of earlier passes exist in all.
    """
    one = largest_pass(run, device, precision)
    found = activations(run, one)
    head = loss_head(run, one, multiplies_in_fp32=multiplies_in_fp32(device, precision))
    earlier = gradients if run.most_passes_per_step > 1 else 0
    others = (gradients - earlier) * _share_behind_first_block(run)
    inside = _transient(run, one)
    phases = (
        (found.after_forward(checkpointed), head.kept + head.work),
        (found.after_forward(checkpointed), head.kept + head.converted),
        (found.in_backward(checkpointed) + inside, head.kept),
        (found.in_first_block(checkpointed) + inside + others, 0),
        (gradients - earlier + _last_gradient(run, one), 0),
    )
    kept, in_head = max(phases, key=sum)
    total = max(0, int(kept + in_head) + earlier - gradients)
    in_head = min(in_head, total)
    return StepMemory(total - in_head, in_head)


def _share_behind_first_block(run: PlannedRun) -> float:
    """Return the share of the gradients that exist when the backward pass is in the first block."""
    outline = run.outline
    if not run.trained.everything:
        return 1 - 1 / sum(outline.blocks.values())
    first = f"{next(iter(outline.blocks))}.0."
    later = 0
    for name in reversed(outline.weights):
        if name.startswith(first):
            break  # its own weights and the embeddings, which come before it
        later += 0 if name in outline.tied else outline.size_of(name)
    return later / outline.parameters


def _transient(run: PlannedRun, one: Pass) -> int:
    """Gradients inside a block, at the start of its backward pass.

    The most are in its feed-forward network: a gated one has those of the product and of both
    factors. On a GPU, the last matrix is dense before that if it is quantized; `_copies` has it for
    a CPU.
    """
    largest = max(run.outline.linear.values(), key=lambda layer: layer.inputs)
    inner, width = largest.inputs, run.outline.width
    at_once = _gradients_at_once(run, one)
    values = one.tokens * (at_once * inner + width)
    if run.quantization and one.device == "cuda":
        values = max(values, one.tokens * (inner + width) + inner * largest.outputs)
    return int(values * one.itemsize)


def _gradients_at_once(run: PlannedRun, one: Pass) -> int:
    """Return how many gradients of the inner width there are, as values of the pass's format."""
    is_ia3 = isinstance(run.spec.strategy, Ia3Spec)
    if one.device == "cpu":
        # as the measured runs need; a process keeps what was freed
        own = {"phi3": 5, "modernbert": 2}.get(run.family.model_type)
        at_once = own or (4 if is_gated(run) else 1 if _keeps_inner(run) else 2)
        return at_once + (5 if is_ia3 else 0)
    if is_ia3:
        return 3 * WIDE // one.itemsize  # the product with its vector, and both gradients, in fp32
    # the input of the last layer, if it was kept, is free by then
    return (3 if is_gated(run) else 2) - (1 if _keeps_inner(run) else 0)


def _keeps_inner(run: PlannedRun) -> bool:
    """Return whether the input of the last layer of a feed-forward network is kept."""
    downs = run.family.layers.down
    adapted = (path for path in run.trained.adapted if not isinstance(run.spec.strategy, Ia3Spec))
    return run.trained.everything or any(path.endswith(downs) for path in adapted)


def _last_gradient(run: PlannedRun, one: Pass) -> int:
    """The gradient of trained embeddings before it is one in fp32; if they are tied, both."""
    size = one.itemsize
    if not run.trained.everything or size == WIDE:
        return 0
    matrix = run.fields.size("vocab_size") * run.outline.width
    return matrix * (size + (WIDE if run.outline.tied else 0))
