"""A job that trains an imported model further, without the service around it."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from core.spec.bundle import BundleRef
from core.spec.events import RunFinished
from core.spec.job import JobSpec
from core.spec.making import MadeBundle
from core.spec.strategy import StrategySpec
from core.spec.training import TrainingSpec
from core.spec.tuned import TunedSpec
from core.spec.workspace import Workspace
from core.training.recipe import train


def continued(
    folder: Path, found: MadeBundle, strategy: StrategySpec | None = None
) -> tuple[MadeBundle, Path]:
    """Train the bundle in `folder` on the rows beside it; return the new one, and its folder."""
    workspace = Workspace(folder=folder / "job")
    workspace.folder.mkdir()
    (folder / "train.jsonl").rename(workspace.train_file)
    (folder / "bundle").rename(workspace.parent_folder)
    tuned = found.tuned
    spec = JobSpec(
        base=tuned.base,
        task=tuned.task,
        objective=tuned.objective,
        strategy=strategy or tuned.strategy,
        training=TrainingSpec(max_steps=2, batch_size=4, precision="fp32"),
        parent=BundleRef(key="bundles/a", sha256="0" * 64),
        seed=1,
    )
    *_, finished = train(spec, workspace, lambda: False)
    assert isinstance(finished, RunFinished) and finished.reference is not None, finished
    before, after = (
        load_file(each / "adapter_model.safetensors")
        for each in (workspace.parent_folder, finished.folder)
    )
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    changes = {"tuned": TunedSpec.of(spec), "reference": finished.reference}
    return found.model_copy(update=changes), finished.folder
