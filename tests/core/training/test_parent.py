"""A run that goes on from a tuned model."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from core.artifacts.manifest import read_manifest
from core.errors import TunesmithError
from core.spec.bundle import BundleRef
from core.spec.events import StepDone
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
)
from core.spec.workspace import Workspace
from core.training.recipe import train

PARENT = BundleRef(key="bundles/parent.zip", sha256="0" * 64)


def run(spec, workspace):
    return list(train(spec, workspace, lambda: False))


@pytest.fixture
def grown_up(tmp_path, workspace):
    """Return a function from a spec to the workspace of a job that has its result as parent."""

    def build(spec):
        run(spec, workspace)
        child = Workspace(folder=tmp_path / "child")
        child.folder.mkdir()
        shutil.copy(workspace.train_file, child.folder)
        shutil.copytree(workspace.bundle_folder, child.parent_folder)
        return child

    return build


def weights(folder):
    return load_file(folder / read_manifest(folder).weights_file)


@pytest.mark.parametrize(
    "strategy",
    [
        LoraSpec(rank=4),
        LoraSpec(rank=4, use_dora=True),
        QloraSpec(rank=4),
        BottleneckSpec(reduction_factor=4),
        PrefixSpec(virtual_tokens=4),
        PromptSpec(virtual_tokens=4),
        FullSpec(),
    ],
    ids=["lora", "dora", "qlora", "bottleneck", "prefix", "prompt", "full"],
)
def test_training_begins_where_the_parent_ended(job, grown_up, workspace, strategy):
    """A step at the rate 0 changes nothing, so the child is the parent."""
    spec = job(strategy, max_steps=3, learning_rate=2e-2)
    child = grown_up(spec)
    still = job(strategy, max_steps=2, warmup_ratio=1.0, evaluation={"every_steps": 1})
    still = still.model_copy(update={"parent": PARENT})
    events = run(still, child)
    parent = weights(child.parent_folder)
    after_one = weights(child.checkpoint_folder(1))
    assert parent.keys() == after_one.keys()
    assert all(torch.equal(parent[name], after_one[name]) for name in parent)
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    fresh = [e.loss for e in run(job(strategy, max_steps=2), workspace) if isinstance(e, StepDone)]
    assert losses[0] < fresh[0]


def test_full_model_that_goes_on_still_names_the_first_base(job, grown_up):
    child = grown_up(job(FullSpec(), max_steps=1))
    spec = job(FullSpec(), max_steps=1).model_copy(update={"parent": PARENT})
    folder = run(spec, child)[-1].folder
    assert read_manifest(folder).base_model == "tiny-test"


def test_parent_of_another_shape_is_refused(job, grown_up):
    child = grown_up(job(LoraSpec(rank=4), max_steps=1))
    spec = job(LoraSpec(rank=8)).model_copy(update={"parent": PARENT})
    with pytest.raises(TunesmithError, match="lora_A"):
        run(spec, child)
