"""What "auto" means."""

from typing import Any

import pytest

from core.catalog.hyperparameters import (
    HYPERPARAMETERS,
    DpoHyperparameters,
    Hyperparameters,
    ResolvedHyperparameters,
    SimpoHyperparameters,
    resolve,
    resolved_hyperparameters,
)
from core.catalog.learning_rate import base_learning_rate
from core.errors import InvalidRequest
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.objective import DpoSpec, ObjectiveSpec, SimpoSpec, SupervisedSpec
from core.spec.strategy import LoraSpec, StrategySpec
from core.spec.training import TrainingSpec

HIDDEN_SIZE = 256


def resolved(
    asked: Hyperparameters,
    training: TrainingSpec | None = None,
    rows: int = 10,
    strategy: StrategySpec = LoraSpec(),  # noqa: B008
    objective: ObjectiveSpec = SupervisedSpec(),  # noqa: B008
    hidden_size: int | None = HIDDEN_SIZE,
) -> JobSpec:
    found = resolve(
        asked,
        training or TrainingSpec(),
        rows=rows,
        strategy=strategy,
        objective=objective,
        hidden_size=hidden_size,
    )
    return JobSpec(
        base=BaseModelSpec(id="a", source="a/a"),
        training=found.training,
        learning_rate_multiplier=found.learning_rate_multiplier,
        strategy=strategy,
        objective=objective,
        seed=0,
    )


def rate_of(strategy: StrategySpec, objective: ObjectiveSpec, steps: int) -> float:
    return base_learning_rate(strategy, objective, HIDDEN_SIZE, steps)


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
    training = resolved(Hyperparameters(), rows=rows).training
    assert (training.epochs, training.batch_size) == (epochs, batch_size)
    steps = epochs * -(-rows // batch_size)
    assert training.learning_rate == rate_of(LoraSpec(), SupervisedSpec(), steps)


def test_max_steps_counts_in_place_of_epochs() -> None:
    few, many = (
        resolved(Hyperparameters(), TrainingSpec(max_steps=steps)).training.learning_rate
        for steps in (10, 10_000)
    )
    assert (few, many) == tuple(
        rate_of(LoraSpec(), SupervisedSpec(), steps) for steps in (10, 10_000)
    )


def test_numbers_stand() -> None:
    asked = Hyperparameters(n_epochs=5, batch_size=7, learning_rate_multiplier=0.1)
    job = resolved(asked, TrainingSpec(warmup_ratio=0.5))
    training = job.training
    assert (training.epochs, training.batch_size, training.warmup_ratio) == (5, 7, 0.5)
    own = rate_of(LoraSpec(), SupervisedSpec(), 10)
    assert training.learning_rate == pytest.approx(0.1 * own)
    assert resolved_hyperparameters(job).model_dump() == {
        "n_epochs": 5,
        "batch_size": 7,
        "learning_rate_multiplier": 0.1,
    }


def test_absolute_values_win_over_auto() -> None:
    own = TrainingSpec(epochs=2, batch_size=4, learning_rate=1e-3)
    job = resolved(Hyperparameters(), own)
    training = job.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (2, 4, 1e-3)
    multiplier = resolved_hyperparameters(job).learning_rate_multiplier
    assert multiplier == pytest.approx(1e-3 / rate_of(LoraSpec(), SupervisedSpec(), 6), rel=1e-5)


def test_saying_the_same_twice_is_fine_and_two_things_are_not() -> None:
    asked = Hyperparameters(n_epochs=2)
    assert resolved(asked, TrainingSpec(epochs=2)).training.epochs == 2
    with pytest.raises(InvalidRequest) as refused:
        resolved(asked, TrainingSpec(epochs=3))
    assert refused.value.param == "training.epochs"
    twice = TrainingSpec(learning_rate=2 * rate_of(LoraSpec(), SupervisedSpec(), 100))
    assert resolved(Hyperparameters(learning_rate_multiplier=2), twice).training == (
        resolved(Hyperparameters(), twice).training
    )
    with pytest.raises(InvalidRequest) as refused:
        resolved(Hyperparameters(learning_rate_multiplier=2), TrainingSpec(learning_rate=1e-3))
    assert refused.value.param == "training.learning_rate"


def test_learning_rate_above_one_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolved(Hyperparameters(learning_rate_multiplier=5001))
    assert refused.value.param == "learning_rate_multiplier"


@pytest.mark.parametrize(
    ("asked", "given", "rate", "multiplier"),
    [
        ("auto", "auto", "auto", 1.0),
        (0.5, "auto", "auto", 0.5),
        ("auto", 1e-3, 1e-3, "auto"),
    ],
)
def test_a_base_that_only_workers_have_leaves_open_what_nobody_can_know(
    asked: Any, given: Any, rate: Any, multiplier: Any
) -> None:
    hyperparameters = Hyperparameters(learning_rate_multiplier=asked)
    job = resolved(hyperparameters, TrainingSpec(learning_rate=given), hidden_size=None)
    assert job.training.learning_rate == rate
    assert resolved_hyperparameters(job).learning_rate_multiplier == multiplier


def test_a_rate_beside_a_multiplier_is_refused_where_nobody_can_know_that_they_agree() -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolved(
            Hyperparameters(learning_rate_multiplier=1),
            TrainingSpec(learning_rate=1e-3),
            hidden_size=None,
        )
    assert refused.value.param == "training.learning_rate"


@pytest.mark.parametrize(
    ("objective", "multiplier"), [(SupervisedSpec(), 5.0), (DpoSpec(beta=0.3), 100.0)]
)
def test_a_job_from_before_bases_had_rates_shows_what_it_showed(
    objective: ObjectiveSpec, multiplier: float
) -> None:
    job = JobSpec(
        base=BaseModelSpec(id="a", source="a/a"),
        training=TrainingSpec(learning_rate=1e-3),
        objective=objective,
        seed=0,
    )
    stored = job.model_dump(mode="json", exclude={"learning_rate_multiplier"})
    shown = resolved_hyperparameters(JobSpec.model_validate(stored))
    assert shown.learning_rate_multiplier == multiplier


def test_preferences_are_gone_through_once_and_show_their_beta() -> None:
    job = resolved(DpoHyperparameters(), rows=10, objective=DpoSpec(beta=0.3))
    assert job.training.learning_rate == rate_of(LoraSpec(), DpoSpec(), 10)
    assert resolved_hyperparameters(job).model_dump() == {
        "n_epochs": 1,
        "batch_size": 1,
        "learning_rate_multiplier": 1.0,
        "beta": 0.3,
        "label_smoothing": 0.0,
    }


@pytest.mark.parametrize("method", HYPERPARAMETERS)
def test_a_job_shows_every_number_of_its_method(method: str) -> None:
    assert (
        HYPERPARAMETERS[method].model_fields.keys() <= ResolvedHyperparameters.model_fields.keys()
    )


def test_simpo_shows_its_margin() -> None:
    shown = resolved_hyperparameters(resolved(SimpoHyperparameters(), objective=SimpoSpec()))
    assert (shown.beta, shown.gamma, shown.label_smoothing) == (2.0, 1.0, None)
    assert "label_smoothing" not in shown.model_dump()
