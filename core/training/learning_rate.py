"""Resolves the learning rate of a run whose base the API could not read."""

from transformers import PreTrainedConfig

from core.catalog.families import hidden_size
from core.catalog.learning_rate import base_learning_rate, settle
from core.spec.events import DatasetValidated
from core.spec.job import JobSpec
from core.training.schedule import peak_rate


def settled(spec: JobSpec, config: PreTrainedConfig, steps: int) -> JobSpec:
    """Return the job with a numeric learning rate and multiplier.

    A value settled by the API is kept, so that every attempt trains the same way. Raises
    InvalidRequest if the multiplier makes the rate too high.
    """
    rate, multiplier = spec.training.learning_rate, spec.learning_rate_multiplier
    if not isinstance(rate, str) and not isinstance(multiplier, str):
        return spec
    size = hidden_size(config.to_dict())
    assert size is not None, "the configs of all families have the field of their width"
    base = base_learning_rate(spec.strategy, spec.objective, size, steps)
    found = settle(rate, "auto" if multiplier is None else multiplier, base)
    training = spec.training.model_copy(update={"learning_rate": found.peak})
    return spec.model_copy(
        update={"training": training, "learning_rate_multiplier": found.multiplier}
    )


def with_rate(event: DatasetValidated, spec: JobSpec) -> DatasetValidated:
    """Return the event with the rate and the multiplier of a settled job."""
    numbers = {
        "learning_rate": peak_rate(spec.training),
        "learning_rate_multiplier": spec.learning_rate_multiplier,
    }
    return event.model_copy(update=numbers)
