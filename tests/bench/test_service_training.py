"""What the benchmark of the service makes of its runs."""

import pytest

from bench.cases import TrlSetting, within_reach
from bench.measure import MeasuredRun, MeasuredStep
from bench.service_training import distance


def run(*losses: float, tokens: int = 100) -> MeasuredRun:
    return MeasuredRun(tuple(MeasuredStep(1.0, tokens, 50, loss) for loss in losses))


def test_losses_are_compared_step_by_step() -> None:
    assert distance(run(2.0, 1.5), run(2.01, 1.4)) == pytest.approx(0.1)


def test_steps_with_other_rows_stop_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="differ from ours"):
        distance(run(2.0), run(2.0, tokens=99))


def test_settings_that_may_be_the_fastest_of_their_group_run_again() -> None:
    settings = [
        TrlSetting("padded", "fp32"),
        TrlSetting("packed", "fp32"),
        TrlSetting("padded", "bf16 weights"),
        TrlSetting("packed", "bf16 weights"),
        TrlSetting("padding-free", "bf16 weights"),
    ]
    speeds = dict(zip((each.name for each in settings), (50, 100, 70, 200, 180), strict=True))
    assert within_reach(settings, speeds) == {
        "TRL padded, fp32",  # the fastest in fp32 with our steps
        "TRL packed, fp32",
        "TRL packed, bf16 weights",
        "TRL padding-free, bf16 weights",
    }
