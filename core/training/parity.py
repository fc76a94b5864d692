"""What training says of a few rows with the weights of the bundle, for others to compare with.

The worker asks the engine for the same rows before the model is published
(docs/decisions/0018-parity-knows-its-own-noise.md).
"""

from collections.abc import Callable, Sequence

import torch

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import is_out_of_memory
from core.catalog.describe import is_quantised
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
    """Return what training says of `replays`, or why it can say nothing; None when told to stop.

    Of qlora it is the trained adapter on the base as it is served, since the quantised one that
    was trained on is another model (docs/decisions/0008-qlora-served-on-the-plain-base.md). The
    model is left as it was, in evaluation mode. Raises TrainingFailed for figures that are not
    finite.
    """
    precision, replays = name_of(trained.dtype), replays[: effort.rows]
    if not replays:
        return ParityReference(
            precision=precision, missing="every text was cut to the length limit"
        )
    try:
        adapted, figures, gap = _served(trained, replays)
    except TrainingFailed as shortage:
        return ParityReference(precision=precision, missing=f"memory is too short: {shortage}")
    _require_finite(figures)
    measuring = Measurement(trained, adapted, replays, figures, stop, effort)
    try:
        repeats = tuple(measuring.repeats())
        ablations = tuple(measuring.ablations(repeats))
    except Stopped:
        return None
    if not repeats:
        return ParityReference(
            precision=precision, missing="nothing tells how far rounding alone moves its figures"
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
            "The trained model gives log-probabilities that are no longer finite. Lower the "
            "learning rate or lengthen the warmup.",
            code="loss_nonfinite",
        )


def _served(
    trained: Trained, replays: Sequence[Replay]
) -> tuple[AdaptedModel, list[list[float]], float | None]:
    """Return the model as it is served, its figures, and how far the quantised ones were off.

    That distance, in nats, is None where the model is served as it was trained.
    """
    figures = trained.figures(trained.adapted, replays)
    if not _was_quantised_to_train(trained.spec):
        return trained.adapted, figures, None
    adapted, quantised = _on_the_served_base(trained), figures
    figures = trained.figures(adapted, replays)
    return adapted, figures, mean_distance(quantised, figures)


def _was_quantised_to_train(spec: JobSpec) -> bool:
    stored_quantised = is_quantised(load_config(spec.base).to_dict())
    return isinstance(spec.strategy, QloraSpec) and not stored_quantised


def _on_the_served_base(trained: Trained) -> AdaptedModel:
    """Return the adapter of the bundle on its base, not quantised; TrainingFailed without room.

    On a CPU an allocation too many kills the process, so the room is looked for before.
    """
    spec, device = trained.spec, trained.adapted.model.device
    labels = len(trained.labels) or None
    weights = outline(spec.base, load_config(spec.base), spec.task, labels).num_parameters()
    needed, free = weights * trained.dtype.itemsize, free_bytes(device)
    shortage = TrainingFailed(
        f"the base that serves the model takes {needed / 2**30:.1f} GiB beside the quantised one"
    )
    if free is not None and needed > USABLE_SHARE * free:
        raise shortage
    try:
        with torch.random.fork_rng(devices=[]):  # a classifier's head is drawn
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
