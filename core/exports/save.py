"""Writes a model of transformers into a folder, with the generation config of its source."""

import shutil
from pathlib import Path

from transformers import GenerationConfig, PreTrainedModel

from core.exports.older_programs import add_older_names

MAX_SHARD_BYTES = 5 * 10**9
"""Of one file of weights; the size that programs expect."""

_GENERATION_CONFIG = "generation_config.json"


def save_model(model: PreTrainedModel, out: Path, source: Path) -> None:
    """Save weights and config into `out`, and copy the generation config of `source` unchanged.

    transformers refuses to save many published ones, although it loads them.
    """
    model.generation_config = GenerationConfig()
    model.__dict__.pop("hf_device_map", None)  # it would be saved as an offloaded model
    model.save_pretrained(str(out), max_shard_size=MAX_SHARD_BYTES)
    (out / _GENERATION_CONFIG).unlink(missing_ok=True)
    add_older_names(out)
    own = source / _GENERATION_CONFIG
    if model.can_generate() and own.is_file():
        shutil.copyfile(own, out / _GENERATION_CONFIG)
