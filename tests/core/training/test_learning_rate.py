"""A learning rate of "auto": settled by the child where the API could not, and one that learns."""

from pathlib import Path

import pytest

from core.catalog.learning_rate import base_learning_rate
from core.errors import InvalidRequest
from core.models.load import load_config
from core.spec.base_model import BaseModelSpec
from core.spec.events import DatasetValidated, Evaluated, StepDone
from core.spec.job import JobSpec
from core.spec.training import EvaluationSpec, TrainingSpec
from core.spec.workspace import Workspace
from core.training.learning_rate import settled
from core.training.recipe import train

ROOT = Path(__file__).parents[3]
TINY = BaseModelSpec(id="tunesmith/tiny", source=str(ROOT / "core" / "models" / "tiny"))
DOCSTRINGS = ROOT / "examples" / "python_docs"

STEPS = 75
SHARE_OF_LOSS_LEFT = 0.35
"""Of the held-out loss; a rate of 2e-4 left 0.44 of it on rows of this kind."""


def test_the_child_settles_a_rate_that_the_api_left_open(job, workspace):
    spec = job(learning_rate="auto").model_copy(update={"learning_rate_multiplier": 0.5})
    events = list(train(spec, workspace, lambda: False))
    size = load_config(spec.base).hidden_size
    (step, *_) = (event for event in events if isinstance(event, StepDone))
    base = base_learning_rate(spec.strategy, spec.objective, size, step.total_steps)
    (told,) = (event for event in events if isinstance(event, DatasetValidated))
    assert told.learning_rate == pytest.approx(base / 2)
    assert told.learning_rate_multiplier == 0.5
    rates = [event.learning_rate for event in events if isinstance(event, StepDone)]
    assert max(rates) == told.learning_rate
    card = (workspace.bundle_folder / "README.md").read_text()
    assert f"| training.learning_rate | {told.learning_rate} |" in card


def test_the_child_tells_the_multiplier_of_a_rate_that_was_given(job):
    spec = job(learning_rate=1e-3).model_copy(update={"learning_rate_multiplier": "auto"})
    config = load_config(spec.base)
    found = settled(spec, config, 10)
    base = base_learning_rate(spec.strategy, spec.objective, config.hidden_size, 10)
    assert found.training == spec.training
    assert found.learning_rate_multiplier == pytest.approx(1e-3 / base, rel=1e-5)


def test_what_is_settled_stands_whatever_the_steps(job):
    spec = job(learning_rate="auto")
    config = load_config(spec.base)
    found = settled(spec, config, 10)
    assert settled(found, config, 10_000) == found
    earlier = job(learning_rate=1e-3)  # stored when there was no multiplier
    assert settled(earlier, config, 10) == earlier


def test_a_multiplier_that_makes_the_rate_too_high_is_refused_before_training(job, workspace):
    spec = job(learning_rate="auto").model_copy(update={"learning_rate_multiplier": 9999.0})
    with pytest.raises(InvalidRequest) as refused:
        list(train(spec, workspace, lambda: False))
    assert refused.value.param == "learning_rate_multiplier"


@pytest.mark.slow
def test_75_steps_with_every_default_teach_the_shipped_base_something(tmp_path):
    """The rows are short ones, so that this takes seconds."""
    workspace = Workspace(folder=tmp_path)
    short = sorted(rows_of("train"), key=len)[:100]
    workspace.train_file.write_text("".join(short), encoding="utf-8")
    held_out = sorted(rows_of("validation"), key=len)[:40]
    workspace.validation_file.write_text("".join(held_out), encoding="utf-8")
    before = held_out_loss(workspace, {"max_steps": 1, "learning_rate": 1e-12})
    after = held_out_loss(workspace, {"max_steps": STEPS, "batch_size": 2})
    assert after < SHARE_OF_LOSS_LEFT * before


def rows_of(part):
    return (DOCSTRINGS / f"{part}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)


def held_out_loss(workspace, hyper):
    spec = JobSpec(
        base=TINY,
        training=TrainingSpec(**hyper),
        evaluation=EvaluationSpec(every_steps=STEPS),
        seed=1,
    )
    for event in train(spec, workspace, lambda: False):
        if isinstance(event, Evaluated):
            return event.loss  # the bundle is not needed
    raise AssertionError("nothing was evaluated")
