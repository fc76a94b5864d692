"""Evaluation, early stopping, the best step, and what must not change a run's result."""

import functools
import math

import pytest
import torch
from safetensors.torch import load_file

from core.errors import TrainingFailed
from core.evaluation.validation import Validation
from core.spec.events import (
    CheckpointSaved,
    Evaluated,
    ModelReady,
    RunFinished,
    StepDone,
    StoppedEarly,
)
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
)
from core.training.optimizer import TrainingOptimizer
from core.training.recipe import train
from tests.core.training.conftest import write_chats


def run(spec, workspace):
    return list(train(spec, workspace, lambda: False))


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture
def judged(workspace):
    """The workspace with held-out rows that are not those trained on."""
    write_chats(workspace.validation_file, 4, seed=1)
    return workspace


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture
def held_out_losses(monkeypatch):
    """Return a function that says what the evaluations of the runs to come find."""

    def say(*losses):
        coming = iter(losses)
        monkeypatch.setattr(
            "core.training.loop.validate", lambda *_: Validation(next(coming), accuracy=0.5)
        )

    return say


def test_evaluations_and_checkpoints_come_every_so_many_steps(job, judged):
    events = run(job(max_steps=5, evaluation={"every_steps": 2}), judged)
    assert [event.step for event in of(Evaluated, events)] == [2, 4, 5]
    saved = of(CheckpointSaved, events)
    assert [event.step for event in saved] == [2, 4, 5]
    assert [e.validation_loss for e in saved] == [e.loss for e in of(Evaluated, events)]
    assert len(of(StepDone, events)) == 5


def test_checkpoint_of_the_best_step_is_kept_and_becomes_the_model(job, judged, held_out_losses):
    held_out_losses(3.0, 1.0, 2.0, 1.5, 1.0, 4.0)
    events = run(job(max_steps=6, evaluation={"every_steps": 1}), judged)
    kept = {path.name for path in judged.checkpoint_folder(0).parent.iterdir()}
    assert kept == {"step-2", "step-4", "step-5", "step-6"}
    finished = events[-1]
    assert isinstance(finished, RunFinished) and finished.step == 2
    assert of(CheckpointSaved, events)[-1].best_step == 2
    final, best = weights(finished.folder), weights(judged.checkpoint_folder(2))
    assert all(torch.equal(final[name], best[name]) for name in best)
    assert "those after step 2." in (finished.folder / "README.md").read_text()
    later = weights(judged.checkpoint_folder(6))
    assert not all(torch.equal(final[name], later[name]) for name in later)


def test_last_step_is_kept_when_the_best_is_not_asked_for(job, judged, held_out_losses):
    held_out_losses(1.0, 2.0)
    spec = job(max_steps=2, evaluation={"every_steps": 1, "keep_best": False})
    finished = run(spec, judged)[-1]
    assert finished.step == 2
    final, last = weights(finished.folder), weights(judged.checkpoint_folder(2))
    assert all(torch.equal(final[name], last[name]) for name in last)


def test_run_stops_when_the_held_out_loss_no_longer_falls(job, judged, held_out_losses):
    held_out_losses(3.0, 2.0, 2.5, 2.0)
    patient = {"every_steps": 1, "early_stopping_patience": 2}
    events = run(job(max_steps=50, evaluation=patient), judged)
    stopped = of(StoppedEarly, events)
    assert [(event.step, event.best_step) for event in stopped] == [(4, 2)]
    steps = of(StepDone, events)
    assert len(steps) == 4
    assert (events[-1].step, events[-1].trained_tokens) == (2, sum(s.tokens for s in steps))


def test_patience_that_lasts_to_the_end_is_not_an_early_stop(job, judged, held_out_losses):
    held_out_losses(1.0, 2.0, 2.0)
    patient = {"every_steps": 1, "early_stopping_patience": 2}
    events = run(job(max_steps=3, evaluation=patient), judged)
    assert len(of(StepDone, events)) == 3 and not of(StoppedEarly, events)


def test_run_without_held_out_rows_is_never_out_of_patience(job, workspace):
    events = run(job(max_steps=4, evaluation={"early_stopping_patience": 1}), workspace)
    assert len(of(StepDone, events)) == 4


def test_held_out_loss_that_is_not_finite_ends_the_run(job, judged, held_out_losses):
    held_out_losses(math.nan)
    with pytest.raises(TrainingFailed, match="held-out rows") as caught:
        run(job(), judged)
    assert caught.value.code == "loss_nonfinite"


def test_bad_update_is_not_taken_and_the_last_checkpoint_stays(job, judged, monkeypatch):
    real, steps = TrainingOptimizer.clip, 0

    def clip(self, max_norm):
        nonlocal steps
        steps += 1
        norm = real(self, max_norm)
        return math.nan if steps == 3 else norm

    taken = []
    real_step = TrainingOptimizer.step
    monkeypatch.setattr(TrainingOptimizer, "clip", clip)
    monkeypatch.setattr(
        TrainingOptimizer, "step", lambda self, rate: taken.append(rate) or real_step(self, rate)
    )
    with pytest.raises(TrainingFailed, match="at step 3 "):
        run(job(max_steps=5, evaluation={"every_steps": 2}), judged)
    assert len(taken) == 2
    assert all(tensor.isfinite().all() for tensor in weights(judged.checkpoint_folder(2)).values())


@pytest.fixture
def first_scale(monkeypatch):
    """Return a function that sets the scale with which fp16 begins."""

    def say(scale):
        scaler = functools.partial(torch.amp.GradScaler, init_scale=scale)
        monkeypatch.setattr("torch.amp.GradScaler", scaler)

    return say


def test_overflow_of_fp16_leaves_out_the_update_and_goes_on(job, workspace, first_scale):
    first_scale(2.0**22)
    spec = job(max_steps=8, precision="fp16", learning_rate=1e-2)
    steps = of(StepDone, run(spec, workspace))
    assert [step.step for step in steps] == list(range(1, 9))
    left_out = [step.gradient_norm is None for step in steps]
    assert left_out[0] and not left_out[-1]
    assert steps[-1].loss < steps[0].loss


def test_overflow_that_does_not_end_ends_the_run(job, workspace, first_scale):
    first_scale(2.0**60)
    with pytest.raises(TrainingFailed, match="20 overflows in a row") as caught:
        run(job(max_steps=50, precision="fp16"), workspace)
    assert caught.value.code == "loss_nonfinite"


@pytest.mark.parametrize(
    "strategy",
    [
        LoraSpec(rank=4, dropout=0.2),
        QloraSpec(rank=4),
        BottleneckSpec(reduction_factor=4),
        PrefixSpec(virtual_tokens=4),
        PromptSpec(virtual_tokens=4),
        FullSpec(),
    ],
    ids=lambda strategy: strategy.type,
)
def test_losses_are_equal_with_and_without_gradient_checkpointing(job, workspace, strategy):
    losses = []
    for on in (False, True):
        events = run(job(strategy, max_steps=3, gradient_checkpointing=on), workspace)
        assert of(ModelReady, events)[0].gradient_checkpointing is on
        losses.append([event.loss for event in of(StepDone, events)])
    assert losses[0] == losses[1]


def test_noise_changes_the_training_loss_and_repeats_with_the_seed(job, judged):
    curves = [
        [step.loss for step in of(StepDone, run(job(neftune_alpha=alpha), judged))]
        for alpha in (None, 20.0, 20.0)
    ]
    assert curves[0] != curves[1] == curves[2]
