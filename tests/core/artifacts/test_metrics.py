from core.artifacts.metrics import StepMetrics, metrics_csv


def test_table_has_the_columns_of_openai_and_gaps_where_nothing_was_measured() -> None:
    curve = (StepMetrics(1, 3.25, 0.125), StepMetrics(2, 1.5, 0.25, 1.25, 0.4))
    assert metrics_csv(curve).splitlines() == [
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy",
        "1,3.250000,0.125000,,",
        "2,1.500000,0.250000,1.250000,0.400000",
    ]


def test_table_of_no_steps_is_its_header() -> None:
    assert len(metrics_csv(()).splitlines()) == 1
