"""The planner's memory of a step on a GPU is what a pretend GPU counts, within 10 %."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pretend_cuda import library
from tests.pretend_cuda.cases import EVERY, QUICK, Case
from tests.pretend_cuda.unseen import UNSEEN

ROOT = Path(__file__).parents[2]
LARGEST_ERROR = 0.1
MIB = 2**20

Counts = dict[str, dict[str, int]]

pytestmark = pytest.mark.skipif(
    library.missing() is not None, reason=library.missing() or "the device can be had"
)


def counts(which: str) -> Counts:
    """Return what a process with the device counts."""
    command = [sys.executable, "-m", "tests.pretend_cuda.count", which]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: Counts = json.loads(done.stdout)
    return found


def errors(cases: dict[str, Case], found: Counts) -> dict[str, str]:
    """Return the cases in which a prediction is too far off, in words."""
    wrong = {}
    for name, case in cases.items():
        pairs = {"peak": (case.planned_peak(), found[name]["peak"])}
        if not case.checkpointed:  # hardly anything is kept then
            pairs["kept"] = (case.planned_after_forward(), found[name]["kept"])
        for what, (planned, counted) in pairs.items():
            if abs(planned / counted - 1) > LARGEST_ERROR:
                sizes = f"{planned / MIB:,.0f} MiB planned, {counted / MIB:,.0f} counted"
                wrong[f"{name}: {what}"] = f"{sizes} ({planned / counted - 1:+.1%})"
    return wrong


def test_activations_on_a_gpu_are_what_the_device_counts() -> None:
    assert errors(QUICK, counts("quick")) == {}


@pytest.mark.slow
def test_activations_of_every_family_and_strategy_are_what_the_device_counts() -> None:
    assert errors(EVERY, counts("every")) == {}


@pytest.mark.slow
def test_activations_of_shapes_that_the_planner_has_not_seen_are_what_the_device_counts() -> None:
    assert errors(UNSEEN, counts("unseen")) == {}
