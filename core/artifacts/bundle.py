"""The bundle: the downloadable result of a run, in the file layout of PEFT or transformers.

    adapter_config.json  adapter_model.safetensors   for `PeftModel.from_pretrained`, or
    config.json  model.safetensors                   for `AutoModelFor….from_pretrained`
    tokenizer files      chat_template.jinja         for `AutoTokenizer`
    README.md  loss.png  metrics.csv                 the model card, loss plot and metrics
    row_losses.csv                                   the loss of each training line by epoch
    manifest.json                                    sizes and hashes, written last

Equal contents give equal bytes: a bundle has no timestamps, host names or private paths.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import peft
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from core.adapters.adapted import AdaptedModel
from core.artifacts.card import CardFacts, model_card
from core.artifacts.manifest import ADAPTER_FILE, Manifest, public_name, write_manifest
from core.artifacts.metrics import StepMetrics, metrics_csv
from core.artifacts.plot import draw_loss
from core.artifacts.publish import published_folder
from core.spec.base_model import BaseModelSpec
from core.spec.precision import NumberFormat
from core.spec.tuned import TunedSpec


@dataclass(frozen=True)
class BundleContents:
    """The contents of a bundle; the weights are those after `step`."""

    adapted: AdaptedModel
    step: int
    tokenizer: PreTrainedTokenizerBase
    card: CardFacts
    curve: tuple[StepMetrics, ...]
    row_losses_csv: str


def write_bundle(folder: Path, contents: BundleContents) -> Manifest:
    """Write the bundle into `folder` atomically."""
    with published_folder(folder) as partial:
        if contents.adapted.config is None:
            _write_model(partial, contents.adapted)
        else:
            config = _public_config(contents.adapted.config, contents.card.spec.base)
            config.save_pretrained(str(partial))
            _write_adapter(partial / ADAPTER_FILE, contents.adapted)
        contents.tokenizer.save_pretrained(str(partial))
        (partial / "metrics.csv").write_text(metrics_csv(contents.curve), encoding="utf-8")
        (partial / "row_losses.csv").write_text(contents.row_losses_csv, encoding="utf-8")
        draw_loss(partial / "loss.png", contents.curve)
        card = model_card(contents.card, contents.curve, contents.step)
        (partial / "README.md").write_text(card, encoding="utf-8")
        return write_manifest(partial, contents.card.spec, contents.card.model.precision)


def write_adapter_bundle(
    folder: Path,
    adapted: AdaptedModel,
    tokenizer: PreTrainedTokenizerBase,
    tuned: TunedSpec,
    precision: NumberFormat,
    card: str,
) -> Manifest:
    """Write the bundle of an adapter that no run has made, into `folder` atomically.

    It has the files of `write_bundle` except for those about a run. `card` is its README.md.
    """
    assert adapted.config is not None, "a complete model is no adapter"
    with published_folder(folder) as partial:
        _public_config(adapted.config, tuned.base).save_pretrained(str(partial))
        _write_adapter(partial / ADAPTER_FILE, adapted)
        tokenizer.save_pretrained(str(partial))
        (partial / "README.md").write_text(card, encoding="utf-8")
        return write_manifest(partial, tuned, precision)


def _public_config(config: peft.PeftConfig, base: BaseModelSpec) -> peft.PeftConfig:
    """Return a copy for inference that has the public name of the base."""
    public = copy.deepcopy(config)
    public.base_model_name_or_path = public_name(base)
    public.revision = base.revision
    public.inference_mode = True
    for name, value in vars(public).items():
        if isinstance(value, set):  # PEFT writes sets in hash order, which varies by process
            setattr(public, name, sorted(value))
    return public


def _write_adapter(path: Path, adapted: AdaptedModel) -> None:
    state = adapted.state()
    tensors = {name: state[name].contiguous() for name in sorted(state)}
    save_file(tensors, path, metadata={"format": "pt"})


def _write_model(folder: Path, adapted: AdaptedModel) -> None:
    adapted.model.save_pretrained(str(folder), max_shard_size=_NEVER_SPLIT)


_NEVER_SPLIT = 2**62  # one weights file for any model
