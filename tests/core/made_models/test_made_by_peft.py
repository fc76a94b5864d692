"""Every kind of adapter that PEFT makes becomes a bundle that computes what PEFT computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core.artifacts.archive import pack, unpack
from core.artifacts.manifest import read_manifest
from core.engine.device.adapter_loading import load_on
from core.made_models import run
from core.models.load import load_base
from tests.core.made_models.continuing import continued
from tests.core.made_models.exporting import require_exports
from tests.core.made_models.judging import judged
from tests.core.made_models.made_by_peft import KINDS, imported, make

pytestmark = pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")

SECOND = (
    *("all linear", "some layers", "embedding and head", "tokens", "prefix", "prompt"),
    *("ia3 by PEFT's defaults", "classifier on a decoder", "seq2seq prompt"),
)
"""Kinds whose parts are all in others."""


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SECOND)) for kind in KINDS]
)
def test_bundle_computes_what_peft_computes(
    kind: str, tmp_path: Path, base_of: Callable[..., Any], ours: list[tuple[float, ...]]
) -> None:
    """The import is judged as an engine is: our own figures against those of PEFT."""
    chosen = KINDS[kind]
    base = base_of(chosen.family, **chosen.base_options)
    make(chosen.config(), base, tmp_path / "saved")
    found = imported(tmp_path, base, tmp_path / "saved")
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
def test_imported_adapter_is_loaded_trained_further_and_exported(
    kind: str, tmp_path: Path, base_of: Callable[..., Any]
) -> None:
    """The engine's loader takes the bundle, a job continues it, and its model is exported."""
    chosen = KINDS[kind]
    base = base_of(chosen.family, **chosen.base_options)
    make(chosen.config(), base, tmp_path / "saved")
    found = imported(tmp_path, base, tmp_path / "saved")
    tuned, labels = found.tuned, getattr(found.tuned.objective, "labels", None)
    model = load_base(
        base, torch.float32, torch.device("cpu"), task=tuned.task, labels=labels and 3
    )
    load_on(model, "0" * 64, tmp_path / "bundle")
    further, folder = continued(tmp_path, found)
    require_exports(further, folder, tmp_path / "out")


def test_error_of_the_import_is_no_rounding(
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
    found = imported(tmp_path, base, tmp_path / "saved")
    parity = judged(found, ours[0])
    assert parity.status == "failed", parity
