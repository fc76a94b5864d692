"""Soups are the sums that PEFT's `add_weighted_adapter` makes, exactly."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from core.artifacts.manifest import read_manifest
from core.errors import InvalidRequest
from core.made_models.run import make_bundle
from core.spec.making import MadeBundle, MakingRequest, SoupSource
from core.spec.strategy import LoraSpec
from tests.core.made_models.made_by_peft import KINDS, imported, make

WEIGHTS = (0.7, -0.2)
TOKENS = torch.arange(5, 45)[None]


def import_each(folder: Path, base: Any, *configs: peft.PeftConfig) -> list[Path]:
    """Import adapters; return the folders of PEFT, which are beside the bundles."""
    found = []
    for number, config in enumerate(configs):
        saved = folder / f"saved-{number}"
        make(config, base, saved, seed=number + 1)
        (folder / f"import-{number}").mkdir()
        imported(folder / f"import-{number}", base, saved)
        found.append(saved)
    return found


def souped(folder: Path, base: Any, weights: Sequence[float]) -> MadeBundle:
    for index in range(len(weights)):
        (folder / f"import-{index}" / "bundle").rename(folder / f"source-{index}")
    source = SoupSource(weights=tuple(weights))
    return make_bundle(MakingRequest(folder, base, source, threads=1, precision="fp32"))


def logits_of(base: Any, folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32)
    with torch.no_grad():
        found: torch.Tensor = peft.PeftModel.from_pretrained(model, folder).eval()(TOKENS).logits
    return found


@torch.no_grad()
def sum_by_peft(base: Any, folders: Sequence[Path], weights: Sequence[float]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(model, folders[0], adapter_name="a0")
    for index, folder in enumerate(folders[1:], 1):
        adapted.load_adapter(folder, adapter_name=f"a{index}")
    names = [f"a{index}" for index in range(len(folders))]
    options = (
        {} if isinstance(adapted.peft_config["a0"], peft.IA3Config) else {"combination_type": "cat"}
    )
    adapted.add_weighted_adapter(names, list(weights), "sum", **options)
    adapted.set_adapter("sum")
    found: torch.Tensor = adapted.eval()(TOKENS).logits
    return found


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_soup_is_the_sum_of_peft(kind: str, tmp_path: Path, base_of: Callable[..., Any]) -> None:
    base = base_of("llama")
    config = KINDS[kind].config
    folders = import_each(tmp_path, base, config(), config())
    souped(tmp_path, base, WEIGHTS)
    expected = sum_by_peft(base, folders, WEIGHTS)
    found = logits_of(base, tmp_path / "bundle")
    assert (found - expected).abs().max() < 1e-4
    assert (found - logits_of(base, folders[0])).abs().max() > 1e-2


def test_scale_by_the_root_of_the_rank_is_kept(tmp_path: Path, base_of: Callable[..., Any]) -> None:
    """PEFT's sum of rsLoRA adapters has the scale √rank instead of 1 (docs/lab-notes.md)."""
    base = base_of("llama")
    config = KINDS["rslora"].config
    folders = import_each(tmp_path, base, config(), config())
    souped(tmp_path, base, WEIGHTS)
    found, expected = logits_of(base, tmp_path / "bundle"), sum_of_merged(base, folders, WEIGHTS)
    assert (found - expected).abs().max() < 1e-4
    assert (sum_by_peft(base, folders, WEIGHTS) - expected).abs().max() > 0.1


@pytest.mark.filterwarnings("ignore:.*keys did not match:RuntimeWarning")
def test_ranks_and_layers_may_differ(tmp_path: Path, base_of: Callable[..., Any]) -> None:
    base = base_of("llama")
    one = peft.LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["q_proj", "up_proj"])
    two = KINDS["patterns"].config()
    folders = import_each(tmp_path, base, one, two)
    found = souped(tmp_path, base, WEIGHTS)
    strategy = found.tuned.strategy
    assert isinstance(strategy, LoraSpec) and strategy.rank == 7
    expected = sum_of_merged(base, folders, WEIGHTS)
    assert (logits_of(base, tmp_path / "bundle") - expected).abs().max() < 1e-4


@torch.no_grad()
def sum_of_merged(base: Any, folders: Sequence[Path], weights: Sequence[float]) -> torch.Tensor:
    """Return the logits of the base with Σ wᵢ Δᵢ added to its weights, merged by PEFT."""
    plain = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32)
    sums = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    for folder, weight in zip(folders, weights, strict=True):
        model = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32)
        merged = peft.PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict()
        for name, tensor in plain.state_dict().items():
            sums[name] += weight * (merged[name] - tensor)
    plain.load_state_dict(sums)
    found: torch.Tensor = plain.eval()(TOKENS).logits
    return found


def test_rank_never_exceeds_the_width(tmp_path: Path, base_of: Callable[..., Any]) -> None:
    """Two adapters of rank 20 on layers of width 16 to 32: the sum is factored anew, exactly."""
    base = base_of("llama")
    config = {"task_type": "CAUSAL_LM", "r": 12, "target_modules": ["q_proj", "k_proj"]}
    folders = import_each(tmp_path, base, peft.LoraConfig(**config), peft.LoraConfig(**config))
    found = souped(tmp_path, base, WEIGHTS)
    assert isinstance(found.tuned.strategy, LoraSpec)
    assert sorted(found.tuned.strategy.rank_pattern.values()) == [16, 16]
    expected = sum_by_peft(base, folders, WEIGHTS)
    assert (logits_of(base, tmp_path / "bundle") - expected).abs().max() < 1e-4


def test_complete_modules_are_averaged(tmp_path: Path, base_of: Callable[..., Any]) -> None:
    base = base_of("llama")
    config = KINDS["modules_to_save"].config
    import_each(tmp_path, base, config(), config())
    with pytest.raises(InvalidRequest, match=r"add up to 0\.5"):
        souped(tmp_path, base, WEIGHTS)


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [(("lora", "dora"), "DoRA"), (("lora", "prompt"), "no sums"), (("ia3", "prompt"), "different")],
)
def test_what_is_no_sum_is_refused(
    kinds: tuple[str, str], reason: str, tmp_path: Path, base_of: Callable[..., Any]
) -> None:
    base = base_of("llama")
    import_each(tmp_path, base, *(KINDS[kind].config() for kind in kinds))
    with pytest.raises(InvalidRequest, match=reason):
        souped(tmp_path, base, (0.5, 0.5))


def test_virtual_tokens_are_added(tmp_path: Path, base_of: Callable[..., Any]) -> None:
    base = base_of("llama")
    config = KINDS["prompt"].config
    import_each(tmp_path, base, config(), config())
    souped(tmp_path, base, (0.5, 0.5))
    assert read_manifest(tmp_path / "bundle").strategy.type == "prompt"
