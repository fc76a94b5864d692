from core.artifacts.metrics import learning_curve, metrics_csv
from core.spec.events import Evaluated, PhaseStarted, RunEvent, StepDone


def step_done(step: int, loss: float) -> StepDone:
    return StepDone(
        step=step,
        total_steps=9,
        epoch=1,
        loss=loss,
        accuracy=0.5,
        learning_rate=1e-4,
        gradient_norm=1.0,
        tokens=10,
        targets=5,
        seconds=0.1,
    )


def test_csv_has_the_columns_of_openai() -> None:
    history: tuple[RunEvent, ...] = (
        PhaseStarted(phase="training"),
        step_done(1, 2.0),
        step_done(2, 1.5),
        Evaluated(step=2, loss=1.75, accuracy=0.25),
    )
    assert metrics_csv(history) == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n"
        "1,2.000000,0.500000,,\n"
        "2,1.500000,0.500000,1.750000,0.250000\n"
    )


def test_evaluation_before_the_first_step_has_no_training_loss() -> None:
    history = (Evaluated(step=0, loss=3.0, accuracy=0.0), step_done(1, 2.0))
    assert metrics_csv(history).splitlines()[1:] == [
        "0,,,3.000000,0.000000",
        "1,2.000000,0.500000,,",
    ]


def test_repeated_steps_of_a_resumed_run_count_once() -> None:
    history = (step_done(1, 2.0), step_done(2, 1.9), step_done(2, 1.8), step_done(3, 1.7))
    assert [(entry.step, entry.train_loss) for entry in learning_curve(history)] == [
        (1, 2.0),
        (2, 1.8),
        (3, 1.7),
    ]
