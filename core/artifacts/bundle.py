"""The bundle: all that a user takes away from a run, in the layout that PEFT loads as it is.

    adapter_config.json  adapter_model.safetensors   what `PeftModel.from_pretrained` reads
    tokenizer files      chat_template.jinja         what `AutoTokenizer` reads
    README.md  loss.png  metrics.csv                 the model card and its figures
    manifest.json                                    written last: sizes and hashes

Equal contents give equal bytes: no clock, no host name, no private path goes in.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from core.artifacts.card import CardFacts, model_card
from core.artifacts.manifest import ADAPTER_FILE, Manifest, public_name, write_manifest
from core.artifacts.metrics import learning_curve, metrics_csv
from core.artifacts.plot import draw_loss
from core.artifacts.publish import published_folder
from core.spec.events import RunEvent
from core.spec.run import BaseModelSpec


@dataclass(frozen=True)
class BundleContents:
    """What a bundle is made of; `adapter_state` is keyed by the names of PEFT's files.

    Such a name is `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
    """

    peft_config: peft.PeftConfig
    adapter_state: dict[str, torch.Tensor]
    tokenizer: PreTrainedTokenizerBase
    card: CardFacts
    history: tuple[RunEvent, ...]


def write_bundle(folder: Path, contents: BundleContents) -> Manifest:
    """Write the bundle into `folder`, which appears complete or not at all."""
    base = contents.card.base
    curve = learning_curve(contents.history)
    with published_folder(folder) as partial:
        _public_config(contents.peft_config, base).save_pretrained(str(partial))
        _write_adapter(partial / ADAPTER_FILE, contents.adapter_state)
        contents.tokenizer.save_pretrained(str(partial))
        (partial / "metrics.csv").write_text(metrics_csv(contents.history), encoding="utf-8")
        draw_loss(partial / "loss.png", curve)
        (partial / "README.md").write_text(model_card(contents.card, curve), encoding="utf-8")
        return write_manifest(partial, contents.card.spec)


def _public_config(config: peft.PeftConfig, base: BaseModelSpec) -> peft.PeftConfig:
    """A copy that names the base as others know it, ready for inference."""
    public = copy.deepcopy(config)
    public.base_model_name_or_path = public_name(base)
    public.revision = base.revision
    public.inference_mode = True
    for name, value in vars(public).items():
        if isinstance(value, set):  # PEFT would write it in the order of this process's hashes
            setattr(public, name, sorted(value))
    return public


def _write_adapter(path: Path, state: dict[str, torch.Tensor]) -> None:
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    save_file(tensors, path, metadata={"format": "pt"})
