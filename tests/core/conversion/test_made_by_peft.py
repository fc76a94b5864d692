"""Every kind of adapter that PEFT makes becomes a bundle that computes what PEFT computes."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file

from core.artifacts.archive import pack, unpack
from core.artifacts.manifest import read_manifest
from core.conversion import run
from core.engine.device.adapter_loading import load_on
from core.models.load import load_base
from core.parity.asking import Replies, Reply
from core.parity.verdict import judge
from core.spec.bundle import BundleRef
from core.spec.conversion import Converted
from core.spec.events import RunFinished
from core.spec.job import JobSpec
from core.spec.parity import Parity
from core.spec.training import TrainingSpec
from core.spec.workspace import Workspace
from core.training.recipe import train
from tests.core.conversion.made_by_peft import KINDS, converted, make

SECOND = (
    *("all linear", "some layers", "embedding and head", "tokens", "prefix", "prompt"),
    *("ia3 by PEFT's defaults", "classifier on a decoder", "seq2seq prompt"),
)
"""Kinds whose parts are all in others."""


def judged(found: Converted, figures: tuple[float, ...]) -> Parity:
    """Return the verdict on an engine that gives these figures."""
    replies, left = [], list(figures)
    for row in found.reference.rows:
        own, left = left[: len(row.figures)], left[len(row.figures) :]
        replies.append(Reply(getattr(row, "prompt_ids", ()), tuple(own)))
    return judge(found.reference, Replies(tuple(replies)))


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SECOND)) for kind in KINDS]
)
def test_bundle_computes_what_peft_computes(
    kind: str, tmp_path: Path, base_of: Callable[..., Any], ours: list[tuple[float, ...]]
) -> None:
    """The conversion is judged as an engine is: our own figures against those of PEFT."""
    chosen = KINDS[kind]
    base = base_of(chosen.family, **chosen.base_options)
    make(chosen.config(), base, tmp_path / "saved")
    found = converted(tmp_path, base, tmp_path / "saved")
    assert read_manifest(tmp_path / "bundle").strategy == found.tuned.strategy
    pack(tmp_path / "bundle", tmp_path / "bundle.zip")
    unpack(tmp_path / "bundle.zip", tmp_path / "unpacked")

    (figures,) = ours
    parity = judged(found, figures)
    assert parity.status == "passed", parity
    assert parity.max_difference_nats is not None and parity.max_difference_nats < 1e-3
    assert parity.adapter_effect_nats is not None and parity.adapter_effect_nats > 1e-3
    base_alone = next(each for each in found.reference.ablations if each.is_whole)
    assert judged(found, base_alone.figures).status == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_imported_adapter_is_loaded_trained_further_and_taken_away(
    kind: str, tmp_path: Path, base_of: Callable[..., Any]
) -> None:
    """The engine's loader takes the bundle, a job continues it, and PEFT loads the result."""
    chosen = KINDS[kind]
    base = base_of(chosen.family, **chosen.base_options)
    make(chosen.config(), base, tmp_path / "saved")
    tuned = converted(tmp_path, base, tmp_path / "saved").tuned
    workspace = Workspace(folder=tmp_path / "job")
    workspace.folder.mkdir()
    (tmp_path / "train.jsonl").rename(workspace.train_file)
    (tmp_path / "bundle").rename(workspace.parent_folder)
    labels = getattr(tuned.objective, "labels", None)
    model = load_base(
        base, torch.float32, torch.device("cpu"), task=tuned.task, labels=labels and 3
    )
    load_on(model, "0" * 64, workspace.parent_folder)

    spec = JobSpec(
        base=base,
        task=tuned.task,
        objective=tuned.objective,
        strategy=tuned.strategy,
        training=TrainingSpec(max_steps=2, batch_size=4, precision="fp32"),
        parent=BundleRef(key="bundles/a", sha256="0" * 64),
        seed=1,
    )
    *_, finished = train(spec, workspace, lambda: False)
    assert isinstance(finished, RunFinished), finished
    before, after = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (workspace.parent_folder, workspace.bundle_folder)
    )
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(model, str(workspace.bundle_folder))
    stored = peft.get_peft_model_state_dict(loaded, save_embedding_layers=False)
    assert all(torch.equal(stored[name], after[name]) for name in after if name in stored)


def test_error_in_the_conversion_is_no_rounding(
    tmp_path: Path,
    base_of: Callable[..., Any],
    ours: list[tuple[float, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scale that is wrong by a tenth is found, although our own noise was measured with it."""
    copy = run.copy_weights

    def wrong(adapted: Any, weights: Any) -> None:
        copy(adapted, {n: w * 1.1 if "lora_B" in n else w for n, w in weights.items()})

    monkeypatch.setattr(run, "copy_weights", wrong)
    base = base_of("llama")
    make(KINDS["rslora"].config(), base, tmp_path / "saved")
    found = converted(tmp_path, base, tmp_path / "saved")
    parity = judged(found, ours[0])
    assert parity.status == "failed", parity
