"""The peak memory of a training run, by part."""

from dataclasses import asdict, dataclass

from core.catalog.describe import is_stored_quantized
from core.planning.parameters import copied_weights
from core.planning.run import PlannedRun, itemsize
from core.planning.step_memory import Device, multiplies_in_fp32, step_memory
from core.spec.base_model import Quantization
from core.spec.precision import NumberFormat
from core.spec.strategy import LowRankSpec

LARGEST_PREPACKED_BASE_BYTES = 2**30
"""Larger bases are not prepacked; the constant of `core/adapters/low_rank.py`."""

BYTES_PER_TOKEN_OF_DATA = 48
"""Of a row of tokens in Python: a number, a flag, and their places in tuples."""

RUN_BYTES = 75 * 2**20
BYTES_PER_TOKEN_OF_VOCABULARY = 700
"""What a run on a CPU loads beside its model: code that draws the loss and packs the bundle, and
the tokenizer. Measured on runs of small models; on a GPU, the device holds none of it."""

SIXTEEN_BIT_KERNELS = 80 * 2**20
"""Of oneDNN, built for each length of a product in bf16."""

ALLOCATOR_SHARE = 0.25
"""What an allocator holds beyond what is used, as a share of what comes and goes in a step."""

_QUANTIZED_BYTES: dict[Quantization, float] = {"nf4": 1 / 2, "int8": 1}


USUAL_CPU = Device("cpu", native_bf16=False, runtime_bytes=520 * 2**20)
"""Without a measurement of a worker."""


@dataclass(frozen=True)
class MemoryParts:
    """Bytes at the peak of a run; they add up to it."""

    runtime: int
    """The process with its libraries and its data, and on a GPU the context."""
    weights: int
    quantization: int
    """The constants of a quantized base."""
    copies: int
    """Of frozen matrices, in the layout of the CPU's kernels or dense for a moment."""
    adapter: int
    """Weights that are trained beside those of the base, and master copies of 16-bit weights."""
    gradients: int
    optimizer: int
    activations: int
    """Beyond the memory that gradients take over as the activations are freed."""
    loss_head: int
    """The chunks of logits, and the gradient of the states."""
    allocator: int
    """Memory that is free inside the process but not returned."""
    other_phases: int
    """What loading the base, or checking the trained model, needs beyond the training."""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def peak_memory(
    run: PlannedRun,
    device: Device,
    precision: NumberFormat,
    *,
    checkpointed: bool,
    checks_dense: bool = True,
) -> MemoryParts:
    """Return the memory of the run at its peak on `device`.

    `checks_dense`: the model of qlora is checked on its dense base, which a run omits if memory is
    short.
    """
    counts, outline = run.counts, run.outline
    size = itemsize(precision)
    resident = _weights(run, precision)
    copied = copied_weights(outline, run.trained)
    in_base_dtype = run.trained.everything
    masters = 4 * counts.trainable if in_base_dtype and size < 4 else 0
    adapter = masters if in_base_dtype else 4 * (run.trained.added + copied)
    gradients = 4 * counts.trainable
    optimizer = (2 if run.optimizer == "paged_adamw_8bit" else 8) * counts.trainable
    beside = step_memory(run, device, precision, gradients, checkpointed=checkpointed)
    parts = MemoryParts(
        runtime=_runtime(run, device, precision),
        weights=resident.weights,
        quantization=resident.constants,
        copies=_copies(run, device, precision, resident.dense),
        adapter=adapter,
        gradients=gradients,
        optimizer=optimizer,
        activations=beside.activations,
        loss_head=beside.loss_head,
        allocator=int(ALLOCATOR_SHARE * beside.total),
        other_phases=0,
    )
    return _with_other_phases(parts, _other_phases(run, device, parts, resident, checks_dense))


@dataclass(frozen=True)
class _Resident:
    """Bytes of the base in memory."""

    weights: int
    constants: int
    dense: int
    """As if nothing were quantized."""


def _weights(run: PlannedRun, precision: NumberFormat) -> _Resident:
    size, outline = itemsize(precision), run.outline
    dense = size * outline.parameters
    if run.quantization is None:
        return _Resident(dense, 0, dense)
    heads = run.family.head if run.spec.task == "classification" else ()
    layers = {
        path: layer
        for path, layer in outline.linear.items()
        if not any(part in heads for part in path.split("."))
    }
    quantized = sum(layer.inputs * layer.outputs for layer in layers.values())
    outputs = sum(layer.outputs for layer in layers.values())
    constants = _constants(run, quantized, outputs)
    stored = int(_QUANTIZED_BYTES[run.quantization] * quantized)
    return _Resident(dense - size * quantized + stored, constants, dense)


def _constants(run: PlannedRun, weights: int, outputs: int) -> int:
    """Return the bytes of scales: of 64 weights each, or in eight bits of a row.

    Double quantization stores them in one byte, with 4 more bytes for 256 of them.
    """
    if run.quantization == "int8":
        return 4 * outputs
    is_double = getattr(run.spec.strategy, "double_quantization", True)
    return int(weights * (1 / 64 + 4 / (64 * 256) if is_double else 4 / 64))


def _runtime(run: PlannedRun, device: Device, precision: NumberFormat) -> int:
    if device.kind == "cuda":
        return device.runtime_bytes
    data = int(run.workload.tokens * BYTES_PER_TOKEN_OF_DATA)
    tokenizer = BYTES_PER_TOKEN_OF_VOCABULARY * run.fields.size("vocab_size")
    kernels = 0 if multiplies_in_fp32(device, precision) else SIXTEEN_BIT_KERNELS
    return device.runtime_bytes + RUN_BYTES + kernels + tokenizer + data


def _copies(run: PlannedRun, device: Device, precision: NumberFormat, dense: int) -> int:
    outline = run.outline
    if run.quantization is not None and device.kind == "cuda":
        return 0  # among the values of the backward pass
    if run.quantization is not None:
        largest = max(layer.inputs * layer.outputs for layer in outline.linear.values())
        return 2 * 4 * largest  # dequantized, and converted
    is_low_rank = isinstance(run.spec.strategy, LowRankSpec)
    if not (is_low_rank and multiplies_in_fp32(device, precision)):
        return 0
    if dense > LARGEST_PREPACKED_BASE_BYTES:
        return 0
    layers = run.trained.adapted.values()
    return 2 * 4 * sum(layer.inputs * layer.outputs for layer in layers)


def _other_phases(
    run: PlannedRun, device: Device, parts: MemoryParts, resident: _Resident, checks_dense: bool
) -> int:
    """Return the bytes of the largest of the other phases.

    Loading maps the file of the weights, whose pages count as resident on a CPU, and copies it. The
    model of qlora is checked on its dense base, which is loaded beside it; on a CPU, the memory of
    the activations is then free inside the process, but in pieces.
    """
    on_disk = _stored_bytes(run) if device.kind == "cpu" else 0
    loading = parts.runtime + resident.weights + resident.constants + on_disk
    if not (checks_dense and is_checked_dense(run)):
        return loading
    kept = parts.total if device.kind == "cpu" else parts.total - parts.activations
    return max(loading, kept + resident.dense + on_disk)


def is_checked_dense(run: PlannedRun) -> bool:
    """Return whether the trained model is checked on another base than the one in training."""
    return run.spec.strategy.type == "qlora" and not is_stored_quantized(run.config)


def _stored_bytes(run: PlannedRun) -> int:
    """Return the size of the files of the weights."""
    stored = str(run.config.get("dtype") or run.config.get("torch_dtype") or "float32")
    size = 2 if stored.removeprefix("torch.") in ("bfloat16", "float16") else 4
    return size * run.outline.parameters


def _with_other_phases(parts: MemoryParts, others: int) -> MemoryParts:
    missing = max(0, others - parts.total)
    return MemoryParts(**{**asdict(parts), "other_phases": missing})
