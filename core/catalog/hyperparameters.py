"""Resolves the hyperparameters of a request, including `"auto"`, to the numbers of a run.

- Epochs: three, but more for a tiny dataset, so that at least 100 examples are seen (at most 25
  epochs), and fewer for a large one, so that at most 25,000 are (at least one epoch). The rule
  comes from OpenAI's published recipe for preparing chat datasets. Preferences are trained for
  one epoch, as in Rafailov et al. 2023.
- Batch size: 8 rows. Adapters tolerate large batches worse than full fine-tuning does
  (Schulman et al. 2025, "LoRA Without Regret"), so it only grows with 0.2 % of the rows, to
  32. A tiny dataset gets smaller batches, so that an epoch keeps about 16 steps.
- Learning rate: depends on the base's hidden size, the strategy, the objective and the steps
  (`core/catalog/learning_rate.py`), times the multiplier. If only workers have the base's config,
  the worker that starts the job computes it, and the job shows it from then on.
- Beta of preferences: 0.1; of SimPO 2.0, with a gamma of 1.0.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from core.catalog.learning_rate import base_learning_rate, settle
from core.catalog.objectives import OBJECTIVES
from core.errors import InvalidRequest
from core.spec.job import JobSpec
from core.spec.members import for_each
from core.spec.names import Aliased
from core.spec.numbers import Integer, Number
from core.spec.objective import DpoSpec, MethodName, ObjectiveSpec
from core.spec.strategy import StrategySpec
from core.spec.training import TrainingSpec

_EARLIER_RATES = {
    "full": 2e-5,
    "lora": 2e-4,
    "qlora": 2e-4,
    "bottleneck": 2e-4,
    "prefix": 1e-2,
    "prompt": 3e-2,
}
"""The rates for a multiplier of 1 in jobs that were stored without a multiplier. Complete: jobs of
later strategies have one."""
_EARLIER_DPO_SHARE = 0.05

MAX_EPOCHS = 50
MAX_BATCH_SIZE = 256

TARGET_EPOCHS = 3
MOST_AUTO_EPOCHS = 25
FEWEST_EXAMPLES_SEEN = 100
MOST_EXAMPLES_SEEN = 25_000

USUAL_BATCH_SIZE = 8
MOST_AUTO_BATCH_SIZE = 32
FEWEST_STEPS_PER_EPOCH = 16
ROWS_PER_BATCH_ROW = 500

Auto = Literal["auto"]


class Hyperparameters(BaseModel):
    """OpenAI's three, as in a request."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    method: ClassVar[MethodName] = "supervised"

    n_epochs: Annotated[Integer, Field(ge=1, le=MAX_EPOCHS)] | Auto = "auto"
    batch_size: Annotated[Integer, Field(ge=1, le=MAX_BATCH_SIZE)] | Auto = "auto"
    learning_rate_multiplier: Annotated[Number, Field(gt=0, le=10_000)] | Auto = "auto"

    def of_objective(self) -> dict[str, float]:
        """Return the additional numbers of a method, which are options of its objective."""
        own = self.model_dump(exclude=set(Hyperparameters.model_fields))
        return {name: value for name, value in own.items() if value != "auto"}


class DpoHyperparameters(Hyperparameters):
    """OpenAI's four for preferences, and the share of pairs assumed to be reversed."""

    method = "dpo"

    beta: Annotated[Number, Field(gt=0, le=2)] | Auto = "auto"
    label_smoothing: Annotated[Number, Field(ge=0, lt=0.5)] = 0.0


class OrpoHyperparameters(Hyperparameters):
    """Ours, for preferences: `beta` is the weight of the odds ratio in the loss."""

    method = "orpo"

    beta: Annotated[Number, Field(gt=0, le=10)] | Auto = "auto"


class SimpoHyperparameters(Aliased, Hyperparameters):
    """Ours, for preferences: `gamma` is the required margin of the chosen answer."""

    method = "simpo"

    beta: Annotated[Number, Field(gt=0, le=100)] | Auto = "auto"
    gamma: Annotated[Number, Field(ge=0, le=100)] | Auto = Field(
        "auto", validation_alias=AliasChoices("gamma", "simpo_gamma")
    )


class KtoHyperparameters(Hyperparameters):
    """Ours, for rated answers: the weights balance unequal numbers of good and bad answers."""

    method = "kto"

    beta: Annotated[Number, Field(gt=0, le=10)] | Auto = "auto"
    desirable_weight: Annotated[Number, Field(gt=0, le=1000)] | Auto = "auto"
    undesirable_weight: Annotated[Number, Field(gt=0, le=1000)] | Auto = "auto"


HYPERPARAMETERS: dict[str, type[Hyperparameters]] = for_each(
    MethodName,
    {
        "supervised": Hyperparameters,
        "dpo": DpoHyperparameters,
        "orpo": OrpoHyperparameters,
        "simpo": SimpoHyperparameters,
        "kto": KtoHyperparameters,
    },
)


def _of_some_objectives() -> Any:
    return Field(None, exclude_if=lambda value: value is None)


class ResolvedHyperparameters(BaseModel):
    """The hyperparameters in a job's object, with the additional ones of its objective.

    `learning_rate_multiplier` is `"auto"` only if a numeric learning rate was given and no worker
    has read the base yet.
    """

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float | Auto
    beta: float | None = _of_some_objectives()
    label_smoothing: float | None = _of_some_objectives()
    gamma: float | None = _of_some_objectives()
    desirable_weight: float | None = _of_some_objectives()
    undesirable_weight: float | None = _of_some_objectives()


@dataclass(frozen=True)
class Resolved:
    """The numbers of a run, and its learning rate as a multiple of the base's default."""

    training: TrainingSpec
    learning_rate_multiplier: float | Auto


def resolve(
    asked: Hyperparameters,
    training: TrainingSpec,
    *,
    rows: int,
    strategy: StrategySpec,
    objective: ObjectiveSpec,
    hidden_size: int | None,
) -> Resolved:
    """Return `training` with all numbers resolved, for `rows` rows.

    Without a hidden size, the learning rate stays `"auto"`. Values in `training` are kept. Raises
    InvalidRequest if `asked` contradicts them, or is out of bounds.
    """
    epochs = OBJECTIVES[objective.type].epochs or _epochs(rows)
    resolved = training.model_copy(
        update={
            "epochs": _once(training, "epochs", "n_epochs", asked.n_epochs, automatic=epochs),
            "batch_size": _once(
                training, "batch_size", "batch_size", asked.batch_size, automatic=_batch_size(rows)
            ),
        }
    )
    _require_at_most(resolved.epochs, MAX_EPOCHS, "training.epochs")
    _require_at_most(resolved.batch_size, MAX_BATCH_SIZE, "training.batch_size")
    rate, multiplier = training.learning_rate, asked.learning_rate_multiplier
    if hidden_size is None:
        _refuse_two(rate, multiplier)
        if isinstance(rate, str) and multiplier == "auto":
            multiplier = 1.0
        return Resolved(resolved, multiplier)
    steps = resolved.max_steps or resolved.epochs * math.ceil(rows / resolved.batch_size)
    base = base_learning_rate(strategy, objective, hidden_size, steps)
    _refuse_two(rate, multiplier, base)
    settled = settle(rate, multiplier, base)
    training = resolved.model_copy(update={"learning_rate": settled.peak})
    return Resolved(training, settled.multiplier)


def resolved_hyperparameters(spec: JobSpec) -> ResolvedHyperparameters:
    """Return a run's numbers by OpenAI's names."""
    return ResolvedHyperparameters(
        n_epochs=spec.training.epochs,
        batch_size=spec.training.batch_size,
        learning_rate_multiplier=_shown_multiplier(spec),
        **{
            name: getattr(spec.objective, name, None)
            for name in ResolvedHyperparameters.model_fields.keys() - Hyperparameters.model_fields
        },
    )


def _shown_multiplier(spec: JobSpec) -> float | Auto:
    multiplier, rate = spec.learning_rate_multiplier, spec.training.learning_rate
    if multiplier is not None:
        return multiplier
    if isinstance(rate, str):
        return "auto"
    share = _EARLIER_DPO_SHARE if isinstance(spec.objective, DpoSpec) else 1.0
    return float(f"{rate / (_EARLIER_RATES[spec.strategy.type] * share):.6g}")


def _epochs(rows: int) -> int:
    if rows * TARGET_EPOCHS < FEWEST_EXAMPLES_SEEN:
        return min(MOST_AUTO_EPOCHS, FEWEST_EXAMPLES_SEEN // rows)
    if rows * TARGET_EPOCHS > MOST_EXAMPLES_SEEN:
        return max(1, MOST_EXAMPLES_SEEN // rows)
    return TARGET_EPOCHS


def _batch_size(rows: int) -> int:
    small = min(USUAL_BATCH_SIZE, rows // FEWEST_STEPS_PER_EPOCH)
    large = min(MOST_AUTO_BATCH_SIZE, rows // ROWS_PER_BATCH_ROW)
    return max(1, small, large)


def _once(training: TrainingSpec, field: str, name: str, asked: int | Auto, automatic: int) -> int:
    """Return the value of `training.<field>`, of OpenAI's `<name>`, or the automatic one."""
    if field not in training.model_fields_set:
        return automatic if asked == "auto" else asked
    own: int = getattr(training, field)
    if asked not in ("auto", own):
        raise _contradiction(field, name)
    return own


def _refuse_two(rate: float | Auto, multiplier: float | Auto, base: float | None = None) -> None:
    """Reject a rate with a multiplier, unless they agree according to the base's default."""
    if isinstance(rate, str) or isinstance(multiplier, str):
        return
    if base is None or not math.isclose(rate, multiplier * base, rel_tol=1e-6):
        raise _contradiction("learning_rate", "learning_rate_multiplier")


def _contradiction(field: str, name: str) -> InvalidRequest:
    return InvalidRequest(
        f"training.{field} and the hyperparameter {name} contradict each other; use only one.",
        param=f"training.{field}",
        code="contradictory_parameters",
    )


def _require_at_most(value: float, limit: float, param: str) -> None:
    if value > limit:
        raise InvalidRequest(
            f"Invalid value for {param!r}: should be at most {limit:g}.",
            param=param,
            code="invalid_value",
        )
