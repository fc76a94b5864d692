import pytest
import torch
from transformers import get_scheduler

from core.spec.training import TrainingSpec
from core.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        ("cosine", "cosine"),
        ("linear", "linear"),
        ("constant", "constant_with_warmup"),
        ("polynomial", "polynomial"),
        ("inverse_sqrt", "inverse_sqrt"),
    ],
)
@pytest.mark.parametrize(("warmup_ratio", "total_steps"), [(0.0, 7), (0.1, 25), (0.75, 4)])
def test_rates_are_those_of_transformers(schedule, theirs, warmup_ratio, total_steps):
    spec = TrainingSpec(schedule=schedule, warmup_ratio=warmup_ratio, learning_rate=3e-4)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    warmup_steps = -(-total_steps * warmup_ratio // 1)
    scheduler = get_scheduler(theirs, optimizer, int(warmup_steps), total_steps)
    for step in range(1, total_steps + 1):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(spec, step, total_steps) == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("warmup_ratio", [0.05, 1.0])
def test_run_of_one_step_trains_at_the_full_rate(warmup_ratio):
    spec = TrainingSpec(warmup_ratio=warmup_ratio, learning_rate=3e-4)
    assert learning_rate(spec, 1, total_steps=1) == 3e-4
