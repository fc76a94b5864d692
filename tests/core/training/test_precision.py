"""A run takes the number format that its base can bear, says why, and records it."""

import pytest
import torch

from core.artifacts.manifest import read_manifest
from core.models import precision
from core.spec.events import ModelReady, RunFinished
from core.spec.job import JobSpec
from core.spec.strategy import LoraSpec
from core.spec.training import TrainingSpec
from core.training.recipe import train


@pytest.fixture(autouse=True)
def native_bf16(monkeypatch):
    monkeypatch.setattr(precision, "_cpu_flags", lambda: {"avx512_bf16"})


def run(workspace, base, asked, folder):
    spec = JobSpec(
        base=base,
        strategy=LoraSpec(rank=2),
        training=TrainingSpec(max_steps=1, precision=asked),
        seed=1,
    )
    events = list(train(spec, workspace, lambda: False, precision_folder=folder))
    (ready,) = [event for event in events if isinstance(event, ModelReady)]
    assert isinstance(events[-1], RunFinished)
    assert read_manifest(events[-1].folder).precision == ready.precision
    assert events[-1].reference.precision == ready.precision
    return ready


@pytest.mark.parametrize(
    ("spread", "asked", "number_format", "reason"),
    [
        (0.2, "auto", "bf16", "measured"),
        (1.0, "auto", "fp32", "measured"),
        (1.0, "bf16", "bf16", "set"),
    ],
)
def test_a_run_takes_what_its_base_can_bear(
    workspace, base_of, tmp_path, spread, asked, number_format, reason
):
    base = base_of("llama", initializer_range=spread)
    ready = run(workspace, base, asked, tmp_path / "kept")
    assert (ready.precision, ready.chosen.choice) == (number_format, number_format)
    assert ready.chosen.reason == reason and ready.chosen.cost.is_high == (spread == 1.0)
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_measurement_changes_no_run(workspace, base_of, tmp_path):
    base = base_of("llama", initializer_range=1.0)
    measured = run(workspace, base, "auto", tmp_path / "kept")
    weights = (workspace.bundle_folder / "adapter_model.safetensors").read_bytes()
    torch.manual_seed(99)
    stored = run(workspace, base, "auto", tmp_path / "kept")
    assert stored == measured
    assert (workspace.bundle_folder / "adapter_model.safetensors").read_bytes() == weights
