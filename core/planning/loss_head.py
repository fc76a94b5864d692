"""The memory of the loss over the vocabulary (`core/models/heads.py`)."""

from dataclasses import dataclass

from core.planning.block import WIDE, Pass
from core.planning.run import DeviceKind, PlannedRun

CHUNK_BYTES: dict[DeviceKind, int] = {"cpu": 16 * 2**20, "cuda": 512 * 2**20}
SMALLEST_CHUNK = 64
PREPACKED_STATES = 256
"""The constants of `core/models/heads.py` and `output_head.py`."""


@dataclass(frozen=True)
class HeadMemory:
    """Bytes."""

    kept: int = 0
    """From the forward to the backward pass: the gradients of the states and of a trained matrix.
    The latter becomes the gradient of the weight."""
    work: int = 0
    """During the forward pass: the labelled states, and one chunk of logits."""
    converted: int = 0
    """At the start of the backward pass: a trained matrix's gradient in 16 bits, and in fp32."""


def loss_head(run: PlannedRun, one: Pass, *, multiplies_in_fp32: bool) -> HeadMemory:
    """Return the memory of the head in one pass; a classifier has none over a vocabulary."""
    if run.spec.task == "classification":
        return HeadMemory()
    size, vocabulary = one.itemsize, run.fields.size("vocab_size")
    matrix = vocabulary * run.outline.width
    labelled = int(one.tokens * run.workload.labelled_share)
    states = labelled * run.outline.width * size
    chunk = max(SMALLEST_CHUNK, CHUNK_BYTES[one.device] // (WIDE * vocabulary))
    logits = min(chunk, labelled) * vocabulary
    work = logits * _bytes_per_logit(run, one)
    kept, converted = states, 0
    if trains_head(run):
        # a product in 16 bits is added to the sum in fp32
        product = size * matrix if size < WIDE else 0
        work = max(work, logits * size + product)
        kept += WIDE * matrix
        converted = (size + WIDE) * matrix if size < WIDE else 0
    if multiplies_in_fp32 and labelled >= PREPACKED_STATES:
        is_copied = one.itemsize < WIDE
        work += WIDE * matrix * (2 if is_copied else 1)
    return HeadMemory(kept, states + work, converted)


def trains_head(run: PlannedRun) -> bool:
    """Return whether the matrix of the output head is trained."""
    return run.trained.everything or any(
        path.split(".")[-1] == "lm_head" for path in run.trained.copied
    )


def _bytes_per_logit(run: PlannedRun, one: Pass) -> int:
    """Logits, their softmax in fp32, and for the softmax a copy in fp32.

    A GPU needs no copy of fp16. A cap on the logits has a derivative of its own.
    """
    size = one.itemsize
    is_fused = one.device == "cuda" and one.precision == "fp16"
    converted = 0 if size == WIDE or is_fused else WIDE
    if run.fields.model_type == "gemma2" and run.fields.share("final_logit_softcapping"):
        return size + 3 * WIDE
    return size + WIDE + max(converted, size if size < WIDE else 0)
