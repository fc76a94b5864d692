"""What "auto" means."""

import pytest

from api.jobs.hyperparameters import Hyperparameters, resolve, resolved_hyperparameters
from core.errors import InvalidRequest
from core.spec.training import TrainingSpec


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
    training = resolve(Hyperparameters(), TrainingSpec(), rows=rows)
    assert (training.epochs, training.batch_size) == (epochs, batch_size)
    assert training.learning_rate == 2e-4


def test_numbers_stand() -> None:
    asked = Hyperparameters(n_epochs=5, batch_size=7, learning_rate_multiplier=0.1)
    training = resolve(asked, TrainingSpec(warmup_ratio=0.5), rows=10)
    assert (training.epochs, training.batch_size, training.warmup_ratio) == (5, 7, 0.5)
    assert training.learning_rate == pytest.approx(2e-5)
    assert resolved_hyperparameters(training).model_dump() == {
        "n_epochs": 5,
        "batch_size": 7,
        "learning_rate_multiplier": 0.1,
    }


def test_absolute_values_win_over_auto() -> None:
    own = TrainingSpec(epochs=2, batch_size=4, learning_rate=1e-3)
    training = resolve(Hyperparameters(), own, rows=10)
    assert (training.epochs, training.batch_size, training.learning_rate) == (2, 4, 1e-3)
    assert resolved_hyperparameters(training).learning_rate_multiplier == 5.0


def test_saying_the_same_twice_is_fine_and_two_things_are_not() -> None:
    asked = Hyperparameters(n_epochs=2)
    assert resolve(asked, TrainingSpec(epochs=2), rows=10).epochs == 2
    with pytest.raises(InvalidRequest) as refused:
        resolve(asked, TrainingSpec(epochs=3), rows=10)
    assert refused.value.param == "training.epochs"
    with pytest.raises(InvalidRequest) as refused:
        resolve(
            Hyperparameters(learning_rate_multiplier=2), TrainingSpec(learning_rate=1e-3), rows=10
        )
    assert refused.value.param == "training.learning_rate"


def test_learning_rate_above_one_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolve(Hyperparameters(learning_rate_multiplier=5001), TrainingSpec(), rows=10)
    assert refused.value.param == "learning_rate_multiplier"
