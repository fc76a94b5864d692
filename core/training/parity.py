"""The parity reference: training's figures for a few rows, with the weights of the bundle.

The worker replays the same rows through an engine before the model is published
(docs/decisions/0018-parity-measures-its-own-noise.md).
"""

from collections.abc import Callable, Sequence

import torch

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import is_out_of_memory
from core.catalog.describe import is_stored_quantized
from core.catalog.families import family_of
from core.errors import TrainingFailed
from core.models.attention import use_packed_attention
from core.models.load import load_base, load_config, outline
from core.models.precision import name_of
from core.spec.job import JobSpec
from core.spec.parity import ParityReference
from core.spec.strategy import QloraSpec
from core.strategies.load import load_adapter
from core.training.activations import USABLE_SHARE, free_bytes
from core.training.parity_passes import (
    FINAL,
    Effort,
    Measurement,
    Stopped,
    is_finite,
    mean_distance,
)
from core.training.parity_rows import described
from core.training.replayed import Replay
from core.training.trained import Trained


def parity_reference(
    trained: Trained,
    replays: Sequence[Replay],
    stop: Callable[[], bool] = lambda: False,
    effort: Effort = FINAL,
) -> ParityReference | None:
    """Return training's figures for `replays`, or the reason for having none; None if stopped.

    For qlora, they are those of the adapter on the dense base, as it is served, because the
    quantized base of the training is another model
    (docs/decisions/0008-qlora-served-on-the-dense-base.md). The model does not change and is left
    in evaluation mode. Raises TrainingFailed for figures that are not finite.
    """
    precision, replays = name_of(trained.dtype), replays[: effort.rows]
    if not replays:
        return ParityReference(
            precision=precision, missing="every text was truncated to the length limit"
        )
    try:
        adapted, figures, gap = _served(trained, replays)
    except TrainingFailed as shortage:
        return ParityReference(precision=precision, missing=f"not enough memory: {shortage}")
    _require_finite(figures)
    measuring = Measurement(trained, adapted, replays, figures, stop, effort)
    try:
        repeats = tuple(measuring.repeats())
        ablations = tuple(measuring.ablations(repeats))
    except Stopped:
        return None
    if not repeats:
        return ParityReference(
            precision=precision, missing="the effect of rounding could not be measured"
        )
    return ParityReference(
        precision=precision,
        rows=described(trained, replays, figures),
        repeats=repeats,
        ablations=ablations,
        quantization_gap_nats=gap,
    )


def _require_finite(figures: Sequence[Sequence[float]]) -> None:
    if not all(map(is_finite, figures)):
        raise TrainingFailed(
            "The log-probabilities of the trained model are not finite. Lower the learning rate "
            "or lengthen the warmup.",
            code="loss_nonfinite",
        )


def _served(
    trained: Trained, replays: Sequence[Replay]
) -> tuple[AdaptedModel, list[list[float]], float | None]:
    """Return the model as it is served, its figures, and their distance from the quantized ones.

    The distance is a mean in nats, and None if the model is served as it was trained.
    """
    figures = trained.figures(trained.adapted, replays)
    if not _was_quantized_to_train(trained.spec):
        return trained.adapted, figures, None
    adapted, quantized = _on_dense_base(trained), figures
    figures = trained.figures(adapted, replays)
    return adapted, figures, mean_distance(quantized, figures)


def _was_quantized_to_train(spec: JobSpec) -> bool:
    stored_quantized = is_stored_quantized(load_config(spec.base).to_dict())
    return isinstance(spec.strategy, QloraSpec) and not stored_quantized


def _on_dense_base(trained: Trained) -> AdaptedModel:
    """Return the adapter of the bundle on its dense base; TrainingFailed without enough memory.

    The memory is checked before, because on a CPU an excessive allocation kills the process.
    """
    spec, device = trained.spec, trained.adapted.model.device
    labels = len(trained.labels) or None
    weights = outline(spec.base, load_config(spec.base), spec.task, labels).num_parameters()
    needed, free = weights * trained.dtype.itemsize, free_bytes(device)
    shortage = TrainingFailed(
        f"the dense base needs {needed / 2**30:.1f} GiB in addition to the quantized one"
    )
    if free is not None and needed > USABLE_SHARE * free:
        raise shortage
    try:
        with torch.random.fork_rng(devices=[]):  # a classifier's head is drawn at random
            model = load_base(spec.base, trained.dtype, device, task=spec.task, labels=labels)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise shortage from error
        raise
    if family_of(model.config.model_type).layout == "packed":
        use_packed_attention(model)
    adapted = load_adapter(model, trained.bundle, trained.tokenizer)
    adapted.install()
    return adapted
