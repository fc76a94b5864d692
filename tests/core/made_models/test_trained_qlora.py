"""A QLoRA that PEFT has trained: taken in, judged, trained further as qlora, and taken away."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from core.spec.bundle import BundleRef
from core.spec.events import RunFinished
from core.spec.job import JobSpec
from core.spec.strategy import LoraSpec, QloraSpec
from core.spec.training import TrainingSpec
from core.spec.tuned import TunedSpec
from core.spec.workspace import Workspace
from core.training.recipe import train
from tests.core.made_models.exporting import require_exports
from tests.core.made_models.judging import judged
from tests.core.made_models.made_by_peft import imported
from tests.core.made_models.trained_qlora import train_qlora


def test_trained_qlora_is_taken_trained_further_and_exported(
    tmp_path: Path, base_of: Callable[..., Any], ours: list[tuple[float, ...]]
) -> None:
    base = base_of("llama", hidden_size=64, intermediate_size=128)
    losses = train_qlora(base, tmp_path / "saved")
    assert losses[-1] < losses[0] / 2
    found = imported(tmp_path, base, tmp_path / "saved")
    strategy = found.tuned.strategy
    assert isinstance(strategy, LoraSpec) and strategy.rank_pattern == {"down_proj": 6}
    assert strategy.modules_to_save == ("lm_head",)
    parity = judged(found, ours[0])
    assert parity.status == "passed", parity
    assert parity.max_difference_nats is not None and parity.max_difference_nats < 1e-3
    require_exports(found, tmp_path / "bundle", tmp_path / "out")

    workspace = Workspace(folder=tmp_path / "job")
    workspace.folder.mkdir()
    (tmp_path / "train.jsonl").rename(workspace.train_file)
    (tmp_path / "bundle").rename(workspace.parent_folder)
    spec = JobSpec(
        base=base,
        strategy=QloraSpec(**strategy.model_dump(exclude={"type"})),
        training=TrainingSpec(max_steps=3, batch_size=4, precision="fp32"),
        parent=BundleRef(key="bundles/a", sha256="0" * 64),
        seed=1,
    )
    *_, finished = train(spec, workspace, lambda: False)
    assert isinstance(finished, RunFinished), finished
    assert finished.reference is not None and finished.reference.quantization_gap_nats
    before, after = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (workspace.parent_folder, finished.folder)
    )
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    further = found.model_copy(
        update={"tuned": TunedSpec.of(spec), "reference": finished.reference}
    )
    require_exports(further, finished.folder, tmp_path / "further")
