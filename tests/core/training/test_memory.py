"""Memory that runs out changes how a step is cut up, and nothing else."""

import pytest
import torch

from core.adapters.memory import is_out_of_memory
from core.errors import TrainingFailed
from core.objectives.supervised import Supervised
from core.spec.events import Evaluated, MicroBatchHalved, RunFinished, StepDone
from core.training.recipe import train
from tests.core.training.conftest import write_chats

CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"


def never():
    return False


@pytest.fixture
def small_memory(monkeypatch):
    """Return a function that lets micro-batches of more than so many tokens fail."""
    real = Supervised.loss

    def limit(tokens, error):
        def loss(self, adapted, rows):
            sums = real(self, adapted, rows)
            if sum(row.length for row in rows) > tokens:
                raise error
            return sums

        monkeypatch.setattr(Supervised, "loss", loss)

    return limit


def curve(events):
    return [event.loss for event in events if isinstance(event, StepDone | Evaluated)]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU_MESSAGE)]
)
def test_run_short_of_memory_goes_on_in_smaller_parts(job, workspace, small_memory, error):
    write_chats(workspace.validation_file, 12, seed=1)
    spec = job(epochs=2)
    expected = list(train(spec, workspace, never))
    small_memory(150, error)
    events = list(train(spec, workspace, never))
    halvings = [event for event in events if isinstance(event, MicroBatchHalved)]
    budgets = [event.micro_batch_tokens for event in halvings]
    assert budgets == sorted(set(budgets), reverse=True)
    assert budgets[-1] <= 150 and halvings[0].step == 0
    assert curve(events) == pytest.approx(curve(expected), abs=1e-5)
    assert isinstance(events[-1], RunFinished)


def test_step_starts_from_no_gradients_after_memory_ran_out(job, workspace, monkeypatch):
    """The failing attempt has added the gradients of some micro-batches already."""
    spec = job(max_steps=1, micro_batch_tokens=120, warmup_ratio=0.0)
    expected = list(train(spec, workspace, never))
    real, calls = Supervised.loss, 0

    def fail_once(self, adapted, rows):
        nonlocal calls
        calls += 1
        if calls == 3:
            assert len(rows) > 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, adapted, rows)

    monkeypatch.setattr(Supervised, "loss", fail_once)
    events = list(train(spec, workspace, never))
    norms = [
        [event.gradient_norm for event in run if isinstance(event, StepDone)]
        for run in (events, expected)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_row_that_does_not_fit_alone_fails_the_run_by_its_line(job, workspace, small_memory):
    small_memory(40, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(TrainingFailed, match=r"Line \d+ with \d+ tokens does not fit") as caught:
        list(train(job(), workspace, never))
    assert caught.value.code == "out_of_memory"


def test_smaller_parts_last_beyond_an_interruption(job, workspace, small_memory):
    small_memory(150, torch.OutOfMemoryError("CUDA out of memory"))
    spec = job(epochs=2)
    whole = list(train(spec, workspace, never))
    before = []
    for event in train(spec, workspace, never, resume_seconds=0):
        before.append(event)
        if event.type == "resume_state_saved":
            break
    after = list(train(spec, workspace, never))
    budgets = [
        [event.micro_batch_tokens for event in run if isinstance(event, MicroBatchHalved)]
        for run in (before, after, whole)
    ]
    assert budgets[0] and budgets[0] + budgets[1] == budgets[2]


@pytest.mark.parametrize(
    ("seam", "what"),
    [
        ("core.training.recipe.load_model", "The base model"),
        ("core.training.optimizer.TrainingOptimizer.step", "The optimizer's state"),
    ],
)
def test_what_cannot_be_cut_fails_the_run_by_name(job, workspace, monkeypatch, seam, what):
    def fail(*_):
        raise RuntimeError(CPU_MESSAGE)

    monkeypatch.setattr(seam, fail)
    with pytest.raises(TrainingFailed, match=f"{what} does not fit") as caught:
        list(train(job(), workspace, never))
    assert caught.value.code == "out_of_memory"


def test_other_errors_are_not_taken_for_lack_of_memory(job, workspace, small_memory):
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    small_memory(150, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(train(job(), workspace, never))


def test_allocators_of_this_torch_are_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
