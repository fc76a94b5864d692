"""What "auto" means."""

import pytest

from api.jobs.hyperparameters import (
    DpoHyperparameters,
    Hyperparameters,
    ResolvedHyperparameters,
    base_learning_rate,
    resolve,
    resolved_hyperparameters,
)
from core.errors import InvalidRequest
from core.spec.objective import DpoSpec, ObjectiveSpec, SupervisedSpec
from core.spec.run import BaseModelSpec, JobSpec
from core.spec.strategy import FullSpec, LoraSpec, PrefixSpec, PromptSpec, StrategySpec
from core.spec.training import TrainingSpec


def resolved(
    asked: Hyperparameters,
    training: TrainingSpec | None = None,
    rows: int = 10,
    strategy: StrategySpec = LoraSpec(),  # noqa: B008
    objective: ObjectiveSpec = SupervisedSpec(),  # noqa: B008
) -> TrainingSpec:
    own = training or TrainingSpec()
    return resolve(asked, own, rows=rows, strategy=strategy, objective=objective)


def shown(
    training: TrainingSpec, objective: ObjectiveSpec | None = None
) -> ResolvedHyperparameters:
    base = BaseModelSpec(id="a", source="a/a")
    objective = objective or SupervisedSpec()
    return resolved_hyperparameters(
        JobSpec(base=base, training=training, objective=objective, seed=0)
    )


@pytest.mark.parametrize(
    ("rows", "epochs", "batch_size"),
    [
        (1, 25, 1),
        (10, 10, 1),
        (33, 3, 2),
        (64, 3, 4),
        (128, 3, 8),
        (4_000, 3, 8),
        (8_000, 3, 16),
        (20_000, 1, 32),
        (1_000_000, 1, 32),
    ],
)
def test_auto_follows_the_number_of_rows(rows: int, epochs: int, batch_size: int) -> None:
    training = resolved(Hyperparameters(), rows=rows)
    assert (training.epochs, training.batch_size) == (epochs, batch_size)
    assert training.learning_rate == 2e-4


def test_numbers_stand() -> None:
    asked = Hyperparameters(n_epochs=5, batch_size=7, learning_rate_multiplier=0.1)
    training = resolved(asked, TrainingSpec(warmup_ratio=0.5))
    assert (training.epochs, training.batch_size, training.warmup_ratio) == (5, 7, 0.5)
    assert training.learning_rate == pytest.approx(2e-5)
    assert shown(training).model_dump() == {
        "n_epochs": 5,
        "batch_size": 7,
        "learning_rate_multiplier": 0.1,
    }


def test_absolute_values_win_over_auto() -> None:
    own = TrainingSpec(epochs=2, batch_size=4, learning_rate=1e-3)
    training = resolved(Hyperparameters(), own)
    assert (training.epochs, training.batch_size, training.learning_rate) == (2, 4, 1e-3)
    assert shown(training).learning_rate_multiplier == 5.0


def test_saying_the_same_twice_is_fine_and_two_things_are_not() -> None:
    asked = Hyperparameters(n_epochs=2)
    assert resolved(asked, TrainingSpec(epochs=2)).epochs == 2
    with pytest.raises(InvalidRequest) as refused:
        resolved(asked, TrainingSpec(epochs=3))
    assert refused.value.param == "training.epochs"
    with pytest.raises(InvalidRequest) as refused:
        resolved(Hyperparameters(learning_rate_multiplier=2), TrainingSpec(learning_rate=1e-3))
    assert refused.value.param == "training.learning_rate"


def test_learning_rate_above_one_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolved(Hyperparameters(learning_rate_multiplier=5001))
    assert refused.value.param == "learning_rate_multiplier"


@pytest.mark.parametrize(
    ("strategy", "objective", "rate"),
    [
        (FullSpec(), SupervisedSpec(), 2e-5),
        (LoraSpec(), SupervisedSpec(), 2e-4),
        (LoraSpec(), DpoSpec(), 1e-5),
        (PrefixSpec(), SupervisedSpec(), 1e-2),
        (PromptSpec(), SupervisedSpec(), 3e-2),
    ],
)
def test_learning_rate_follows_strategy_and_objective(
    strategy: StrategySpec, objective: ObjectiveSpec, rate: float
) -> None:
    assert base_learning_rate(strategy, objective) == pytest.approx(rate)
    training = resolved(Hyperparameters(), strategy=strategy, objective=objective)
    assert training.learning_rate == pytest.approx(rate)


def test_preferences_are_gone_through_once_and_show_their_beta() -> None:
    training = resolved(DpoHyperparameters(), rows=10, objective=DpoSpec())
    assert training.epochs == 1
    numbers = shown(training, DpoSpec(beta=0.3)).model_dump()
    assert numbers == {
        "n_epochs": 1,
        "batch_size": 1,
        "learning_rate_multiplier": 1.0,
        "beta": 0.3,
    }
