"""What `"auto"` means: from a request's hyperparameters to the numbers of a run.

- Epochs: three, but so many for a tiny dataset that at least 100 examples are seen (25 epochs
  at most), and so few for a large one that no more than 25,000 are (one at least). The rule
  is that of OpenAI's published recipe for preparing chat datasets. Preferences are gone through
  once, as in Rafailov et al. 2023.
- Batch size: 8 rows. Adapters tolerate large batches worse than full fine-tuning does
  (Schulman et al. 2025, "LoRA Without Regret"), so it only grows with 0.2 % of the rows, to
  32. A tiny dataset gets smaller batches, so that an epoch keeps about 16 steps.
- Learning rate: what the strategy usually takes (`LEARNING_RATES`: low-rank updates some ten
  times as much as full fine-tuning, freshly drawn vectors more still), a twentieth of it for
  preferences, times the multiplier.
- Beta of preferences: 0.1.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.errors import InvalidRequest
from core.spec.objective import DpoSpec, ObjectiveSpec
from core.spec.run import JobSpec
from core.spec.strategy import StrategySpec
from core.spec.training import TrainingSpec

LEARNING_RATES = {
    "full": 2e-5,
    "lora": 2e-4,
    "qlora": 2e-4,
    "bottleneck": 2e-4,
    "prefix": 1e-2,
    "prompt": 3e-2,
}
"""What a learning rate multiplier of 1 stands for, unless the objective is DPO."""

DPO_SHARE = 0.05
"""The part of that rate which learning from preferences takes."""

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
    """OpenAI's three, as they are sent."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    n_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)] | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=10_000)] | Auto = "auto"


class DpoHyperparameters(Hyperparameters):
    """OpenAI's four for preferences, and the share of pairs taken to be the wrong way round."""

    beta: Annotated[float, Field(gt=0, le=2)] | Auto = "auto"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0


class ResolvedHyperparameters(BaseModel):
    """The same, after every `"auto"` has become a number."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float | None = Field(None, exclude_if=lambda beta: beta is None)


def base_learning_rate(strategy: StrategySpec, objective: ObjectiveSpec) -> float:
    """Return the rate that a multiplier of 1 stands for."""
    share = DPO_SHARE if isinstance(objective, DpoSpec) else 1.0
    return LEARNING_RATES[strategy.type] * share


def resolve(
    asked: Hyperparameters,
    training: TrainingSpec,
    *,
    rows: int,
    strategy: StrategySpec,
    objective: ObjectiveSpec,
) -> TrainingSpec:
    """Return `training` with every number that it leaves open, for a dataset of `rows` rows.

    What was set in `training` stands. InvalidRequest when `asked` says something else.
    """
    rate, multiplier = base_learning_rate(strategy, objective), asked.learning_rate_multiplier
    epochs = 1 if isinstance(objective, DpoSpec) else _epochs(rows)
    resolved = training.model_copy(
        update={
            "epochs": _once(training, "epochs", "n_epochs", asked.n_epochs, automatic=epochs),
            "batch_size": _once(
                training, "batch_size", "batch_size", asked.batch_size, automatic=_batch_size(rows)
            ),
            "learning_rate": _once(
                training,
                "learning_rate",
                "learning_rate_multiplier",
                "auto" if multiplier == "auto" else multiplier * rate,
                automatic=rate,
            ),
        }
    )
    _require_at_most(resolved.epochs, MAX_EPOCHS, "training.epochs")
    _require_at_most(resolved.batch_size, MAX_BATCH_SIZE, "training.batch_size")
    _require_at_most(resolved.learning_rate, 1, "learning_rate_multiplier")
    return resolved


def resolved_hyperparameters(spec: JobSpec) -> ResolvedHyperparameters:
    """Return a run's numbers under OpenAI's names."""
    rate = base_learning_rate(spec.strategy, spec.objective)
    return ResolvedHyperparameters(
        n_epochs=spec.training.epochs,
        batch_size=spec.training.batch_size,
        learning_rate_multiplier=float(f"{spec.training.learning_rate / rate:.6g}"),
        beta=spec.objective.beta if isinstance(spec.objective, DpoSpec) else None,
    )


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


def _once(
    training: TrainingSpec, field: str, name: str, asked: float | Auto, *, automatic: float
) -> float:
    """The value of `training.<field>`, of OpenAI's `<name>`, or the automatic one."""
    if field not in training.model_fields_set:
        return automatic if asked == "auto" else asked
    own: float = getattr(training, field)
    if asked not in ("auto", own):
        raise InvalidRequest(
            f"training.{field} and the hyperparameter {name} say different things; give one.",
            param=f"training.{field}",
            code="contradictory_parameters",
        )
    return own


def _require_at_most(value: float, limit: float, param: str) -> None:
    if value > limit:
        raise InvalidRequest(
            f"Invalid value for {param!r}: should be at most {limit:g}.",
            param=param,
            code="invalid_value",
        )
