"""What a job's events say, in words."""

import pytest

from core.spec.events import (
    DatasetValidated,
    LengthBucket,
    MicroBatchHalved,
    ModelReady,
    RowLoss,
    RowLosses,
    StoppedEarly,
)
from core.spec.precision import PrecisionChoice, PrecisionCost
from worker.training import event_messages


def test_report_of_the_rows_names_lines_and_carries_the_histogram() -> None:
    event = DatasetValidated(
        rows=1000,
        validation_rows=50,
        held_out_rows=50,
        tokens=90_000,
        targets=40_000,
        total_steps=10,
        duplicate_rows=2,
        duplicate_lines=(4, 9),
        truncated_rows=7,
        truncated_lines=(1, 2, 3, 5, 6, 7),
        lengths=(LengthBucket(tokens=64, rows=600), LengthBucket(tokens=128, rows=400)),
    )
    told = event_messages.dataset_message(event)
    assert told.message == (
        "1,000 training rows with 90,000 tokens per epoch; 50 validation rows held out from the "
        "training file; 2 duplicates of an earlier row (lines 4, 9); 7 truncated to the length "
        "limit (lines 1, 2, 3, 5, 6, …)."
    )
    assert told.data is not None
    assert told.data["lengths"] == [{"tokens": 64, "rows": 600}, {"tokens": 128, "rows": 400}]


def test_validation_rows_that_are_trained_on_are_a_warning_when_they_are_most() -> None:
    event = DatasetValidated(
        rows=100, validation_rows=10, tokens=9, targets=9, total_steps=1, shared_rows=5
    )
    told = event_messages.dataset_message(event)
    assert told.level == "info"
    assert "5 of those are also training rows" in told.message
    mostly = event_messages.dataset_message(event.model_copy(update={"shared_rows": 6}))
    assert mostly.level == "warn"
    assert mostly.data is not None and mostly.data["shared_rows"] == 6


def test_hardest_rows_are_named_by_line() -> None:
    hardest = tuple(RowLoss(line=n, loss=10.0 - n) for n in range(1, 8))
    told = event_messages.row_message(RowLosses(epoch=2, median=1.25, hardest=hardest))
    assert told.message == (
        "Epoch 2: median row loss=1.25; highest: line 1 (9.00), line 2 (8.00), line 3 (7.00), "
        "line 4 (6.00), line 5 (5.00)"
    )
    assert told.data is not None and len(told.data["hardest"]) == 7


def test_what_the_run_does_by_itself_is_told() -> None:
    ready = ModelReady(
        trainable_parameters=1000,
        total_parameters=2_000_000,
        precision="fp32",
        device="cpu",
        gradient_checkpointing=True,
    )
    assert event_messages.model_message(ready).message == (
        "Training 1,000 of 2,000,000 parameters in fp32 on cpu, with gradient checkpointing to "
        "save memory."
    )
    halved = event_messages.memory_message(MicroBatchHalved(step=3, micro_batch_tokens=2048))
    assert halved.level == "warn" and "at most 2,048 tokens" in halved.message
    stopped = event_messages.early_stop_message(StoppedEarly(step=9, best_step=6)).message
    assert stopped.endswith("step 9: the validation loss has not improved since step 6.")


def ready(chosen: PrecisionChoice | None) -> ModelReady:
    return ModelReady(
        trainable_parameters=1000,
        total_parameters=2_000_000,
        precision="fp32" if chosen is None else chosen.choice,
        device="cpu",
        chosen=chosen,
    )


@pytest.mark.parametrize(
    ("choice", "reason", "kl_nats", "level", "end"),
    [
        (
            "fp32",
            "measured",
            0.31,
            "info",
            "in fp32 on cpu; bf16 costs this base 0.31 nat per token.",
        ),
        (
            "bf16",
            "measured",
            1e-4,
            "info",
            "in bf16 on cpu; bf16 costs this base 0.0001 nat per token.",
        ),
        (
            "bf16",
            "set",
            0.31,
            "warn",
            "bf16 costs this base 0.31 nat per token; precision fp32 avoids this.",
        ),
        (
            "bf16",
            "memory",
            0.31,
            "warn",
            "0.31 nat per token; fp32 would avoid this, but does not fit into memory.",
        ),
        ("bf16", "memory", None, "warn", "is unknown, because fp32 does not fit into memory."),
        ("bf16", "busy", None, "warn", "free memory to measure it; precision fp32 has no cost."),
        ("bf16", "quantized", None, "info", "in bf16 on cpu."),
        ("fp32", "set", None, "info", "in fp32 on cpu."),
    ],
)
def test_the_precision_is_told_with_its_reason(choice, reason, kl_nats, level, end) -> None:
    cost = None
    if kl_nats is not None:
        cost = PrecisionCost(format="bf16", tokens=280, kl_nats=kl_nats, kl_p99_nats=2 * kl_nats)
    told = event_messages.model_message(
        ready(PrecisionChoice(choice=choice, reason=reason, cost=cost))
    )
    assert told.message.endswith(end), told.message
    assert told.level == level
    assert told.data is not None and told.data["precision"]["choice"] == choice
