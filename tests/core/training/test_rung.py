"""A run that pauses at the rungs of a sweep ends as the run that does not."""

import shutil

import pytest

from core.artifacts.manifest import read_manifest
from core.errors import TrainingFailed
from core.evaluation.validation import Validation
from core.spec.events import (
    CheckpointSaved,
    Evaluated,
    ResumeStateSaved,
    RunFinished,
    RungReached,
    RunResumed,
    StepDone,
)
from core.spec.objective import DpoSpec
from core.spec.strategy import FullSpec, LoraSpec, QloraSpec
from core.training import loop
from core.training.plan import StepPlan
from core.training.recipe import train
from tests.core.training.test_resume import moved

RUNS = [
    (LoraSpec(rank=4, dropout=0.2), "cosine"),
    (QloraSpec(rank=4), "constant"),
    (FullSpec(), "polynomial"),
]
AT_THE_END = {"every_steps": 8}


def never():
    return False


def run(spec, workspace, share=None):
    return list(train(spec, workspace, never, pause_at_share=share))


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize(("strategy", "schedule"), RUNS, ids=["lora", "qlora", "full"])
def test_run_paused_at_every_rung_equals_the_whole_run(job, workspace, strategy, schedule):
    """The evaluations at the rungs would be the best of this run, whose rate is too high."""
    shutil.copy(workspace.train_file, workspace.validation_file)
    spec = job(strategy, max_steps=8, schedule=schedule, learning_rate=5e-2, weight_decay=0.1)
    whole = run(spec, moved(workspace, "whole"))
    taken, judged = [], []
    for share in (0.125, 0.25, 0.5, None):
        workspace = moved(workspace, f"until-{share}")
        events = run(spec, workspace, share)
        taken += of(events, StepDone)
        judged += of(events, RungReached)
    figures = {"step", "loss", "learning_rate", "gradient_norm"}
    assert [step.model_dump(include=figures) for step in taken] == [
        step.model_dump(include=figures) for step in of(whole, StepDone)
    ]
    assert [(each.step, each.share) for each in judged] == [(1, 0.125), (2, 0.25), (4, 0.5)]
    (last,), (finished,) = of(whole, RunFinished), of(events, RunFinished)
    assert read_manifest(finished.folder).files == read_manifest(last.folder).files
    assert (finished.validation_loss, finished.step) == (last.validation_loss, last.step)


def test_rung_is_judged_and_its_state_is_saved_before_it_is_told(job, workspace):
    shutil.copy(workspace.train_file, workspace.validation_file)
    spec = job(max_steps=8, evaluation=AT_THE_END)
    *_, judged, saved, told = run(spec, workspace, 0.5)
    assert isinstance(judged, Evaluated) and isinstance(saved, ResumeStateSaved)
    assert told == RungReached(step=4, share=0.5, loss=judged.loss, accuracy=judged.accuracy)
    assert saved.step == 4


def test_rung_that_is_asked_has_a_bundle_and_changes_nothing(job, workspace):
    shutil.copy(workspace.train_file, workspace.validation_file)
    spec = job(max_steps=4, evaluation=AT_THE_END | {"samples": 3})
    *_, whole = run(spec, moved(workspace, "whole"))
    asked = moved(workspace, "asked")
    *_, told = train(spec, asked, never, pause_at_share=0.5, asks_at_rung=True)
    assert told.folder == asked.rung_folder
    assert read_manifest(told.folder).weights_sha256 not in (None, whole.weights_sha256)
    assert told.questions == whole.held_out.questions and len(told.questions) == 3
    *_, finished = run(spec, moved(asked, "rest"))
    assert read_manifest(finished.folder).files == read_manifest(whole.folder).files


def test_rung_that_was_not_told_is_judged_again_without_a_step(job, workspace):
    """A worker that is killed between the state and the result has trained for it."""
    shutil.copy(workspace.train_file, workspace.validation_file)
    spec = job(max_steps=8)
    *_, first = run(spec, workspace, 0.5)
    again = run(spec, moved(workspace, "again"), 0.5)
    assert of(again, StepDone) == [] and of(again, RunResumed) == [RunResumed(step=4)]
    assert again[-1] == first


def test_evaluation_of_a_checkpoint_at_the_rung_is_not_repeated(job, workspace):
    shutil.copy(workspace.train_file, workspace.validation_file)
    events = run(job(max_steps=8, batch_size=8), workspace, 0.25)  # two steps are an epoch
    (judged,), (saved,) = of(events, Evaluated), of(events, CheckpointSaved)
    assert (judged.step, saved.step) == (2, 2)
    assert events[-1] == RungReached(step=2, share=0.25, loss=judged.loss, accuracy=judged.accuracy)


def test_final_result_is_that_of_the_weights_which_are_kept(job, workspace):
    """The rate is so high that the first evaluation is the best."""
    shutil.copy(workspace.train_file, workspace.validation_file)
    events = run(job(max_steps=4, learning_rate=0.9, evaluation={"every_steps": 1}), workspace)
    found = {each.step: each.loss for each in of(events, Evaluated)}
    (finished,) = of(events, RunFinished)
    assert finished.validation_loss == found[finished.step] == min(found.values())


def test_rung_at_the_end_of_a_short_run_is_its_end(job, workspace):
    events = run(job(max_steps=1), workspace, 0.5)
    assert isinstance(events[-1], RunFinished) and of(events, RungReached) == []


def test_loss_that_is_not_finite_at_the_rung_fails_the_run(job, workspace, monkeypatch):
    shutil.copy(workspace.train_file, workspace.validation_file)
    monkeypatch.setattr(loop, "validate", lambda *_: Validation(float("nan"), 0.0))
    with pytest.raises(TrainingFailed, match="no longer finite at step 4") as failure:
        run(job(max_steps=8, evaluation=AT_THE_END), workspace, 0.5)
    assert failure.value.code == "loss_nonfinite"


def test_preferences_pause_too(job, workspace):
    """Their evaluation compares with the model before training."""
    row = '{"prompt": "a %d", "chosen": "yes", "rejected": "no"}\n'
    for path in (workspace.train_file, workspace.validation_file):
        path.write_text("".join(row % number for number in range(8)))
    spec = job(objective=DpoSpec(), max_steps=4, batch_size=2)
    *_, last = run(spec, moved(workspace, "whole"))
    *_, told = run(spec, workspace, 0.5)
    assert told.step == 2 and told.accuracy is not None
    *_, finished = run(spec, moved(workspace, "rest"))
    assert finished.weights_sha256 == last.weights_sha256


@pytest.mark.parametrize(
    ("share", "steps", "expected"),
    [(0.125, 96, 12), (0.3, 10, 3), (0.001, 10, 1), (0.5, 7, 4), (0.99, 10, None), (None, 9, None)],
)
def test_step_of_a_rung(job, share, steps, expected):
    assert StepPlan(job(max_steps=steps), 16).rung_step(share) == expected


def test_rung_at_the_step_of_the_rung_before_is_told_without_a_step(job, workspace):
    """A short run has no step between some shares; ray#39157 hung there."""
    shutil.copy(workspace.train_file, workspace.validation_file)
    spec = job(max_steps=4)
    *_, first = run(spec, workspace, 0.3)
    again = run(spec, moved(workspace, "again"), 0.31)
    assert of(again, StepDone) == []
    assert again[-1] == first.model_copy(update={"share": 0.31})
