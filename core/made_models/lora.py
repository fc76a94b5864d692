"""LoRA of PEFT, with every option that our layers have, as `LoraSpec`.

What is adapted are the layers with tensors in the file: they decide, whether the config names
layers, gives a regular expression or restricts it to some blocks. Changes of the vocabulary's
matrices, which PEFT makes by LoRA or for single tokens, become completely trained modules.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from peft.utils.other import get_pattern_key
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.adapter_files.refusal import RefusedAdapter, shown
from core.adapters.modules_to_save import classifier_head, is_inside
from core.adapters.targets import is_named, linear_paths, targeted_paths
from core.made_models.expressed import (
    PREFIX,
    Expressed,
    Fold,
    Groups,
    built,
    is_vocabulary,
    layer_shape,
    matrix_of,
    require_shape,
    saved_names,
    unexpected,
)
from core.made_models.names import Named
from core.spec.adapter_file import TensorInfo
from core.spec.strategy import LoraSpec

_MATRICES = {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight"}
_BIAS = (
    "a trained bias. An adapter shares the biases of its base with other models: train with "
    'bias="none", or merge the adapter and register the result as a base'
)
_SWAPPED = " Its lora_A and lora_B are swapped: lora_A is (rank, inputs), lora_B (outputs, rank)."


def express_lora(fields: Mapping[str, Any], groups: Groups, model: PreTrainedModel) -> Expressed:
    """Return the adapter as `LoraSpec`; RefusedAdapter if it does not fit the model."""
    lora = {path: parts for path, parts in groups.items() if any(map(_is_lora, parts))}
    if not lora:
        raise RefusedAdapter("The adapter has no lora_A and lora_B: it would do nothing.")
    saved, kept = saved_names(model, fields.get("modules_to_save") or (), groups)
    layers, folds = {}, dict[str, list[Fold]]()
    for path, parts in lora.items():
        module = model.get_submodule(path)
        _require_rank(fields, path, parts)
        if is_vocabulary(model, module):
            folds.setdefault(path, []).append(_update_of(fields, path, parts, module))
        else:
            kept |= _layer(fields, path, parts, module)
            layers[path] = module
    _fold_vocabulary(fields, groups, model, kept, folds)
    if not layers:
        raise RefusedAdapter(
            "The adapter changes the vocabulary only, which cannot be imported. Merge it into its "
            "base, and register the result as a base."
        )
    names = tuple(name for name in saved if name not in classifier_head(model))
    strategy = built(
        LoraSpec,
        rank=fields.get("r", 8),
        alpha=fields.get("lora_alpha", 8),
        dropout=fields.get("lora_dropout", 0.0),
        target_modules=_target_names(fields, model, list(layers), saved),
        rank_pattern=_used(fields.get("rank_pattern"), layers),
        alpha_pattern=_used(fields.get("alpha_pattern"), layers),
        use_rslora=fields.get("use_rslora", False),
        use_dora=fields.get("use_dora", False),
        modules_to_save=tuple(dict.fromkeys((*names, *folds))),
    )
    return Expressed(
        strategy=strategy,
        kept=kept,
        peft_fields=_peft_fields(fields, list(lora), saved, layers.values()),
        peft_names=_peft_names(groups),
        folds={f"{PREFIX}{path}.weight": tuple(each) for path, each in folds.items()},
    )


def _is_lora(part: str) -> bool:
    return part.startswith("lora_")


def _layer(
    fields: Mapping[str, Any], path: str, parts: Mapping[str, Named], module: nn.Module
) -> dict[str, str]:
    """Return the weights of one adapted layer, by name, after a check of their shapes."""
    if not isinstance(module, (nn.Linear, Conv1D)):
        raise RefusedAdapter(
            f"{shown(path)} is a {type(module).__name__}; only linear layers can be adapted."
        )
    wanted = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if fields.get("use_dora") else set())
    if missing := wanted - parts.keys():
        raise RefusedAdapter(f"The adapter lacks {sorted(missing)[0]} of {shown(path)}.")
    for part, each in parts.items():
        if part not in wanted:
            raise unexpected(each, _why_unexpected(part))
    outputs, inputs = layer_shape(module)
    rank = _rank_of(fields, path)
    is_swapped = parts["lora_A"].shape == (outputs, rank)
    require_shape(parts["lora_A"], (rank, inputs), _SWAPPED if is_swapped else "")
    require_shape(parts["lora_B"], (outputs, rank))
    if "lora_magnitude_vector" in wanted:
        require_shape(parts["lora_magnitude_vector"], (outputs,))
    return {
        f"{PREFIX}{path}.{_MATRICES.get(part, part)}": each.tensor.name
        for part, each in parts.items()
    }


def refuse_biases(fields: Mapping[str, Any], tensors: Sequence[TensorInfo]) -> None:
    """Raise RefusedAdapter for an adapter with trained biases, by PEFT's option `bias`.

    PEFT then saves every bias of the model under several names, which have no meaning here.
    """
    for tensor in tensors if fields.get("bias", "none") != "none" else ():
        saved = fields.get("modules_to_save") or ()
        if tensor.name.endswith(".bias") and not set(saved) & set(tensor.name.split(".")):
            raise RefusedAdapter(f"The adapter has {shown(tensor.name)}, {_BIAS}.")


def _why_unexpected(part: str) -> str:
    if part.endswith("bias"):
        return _BIAS
    if part == "lora_magnitude_vector":
        return "which belongs to DoRA, but adapter_config.json says use_dora: false"
    return "which nothing in adapter_config.json explains, and PEFT would ignore"


def _require_rank(fields: Mapping[str, Any], path: str, parts: Mapping[str, Named]) -> None:
    """Raise RefusedAdapter if the config states another rank than the tensors have."""
    first = parts.get("lora_A") or parts.get("lora_embedding_A")
    stated = _rank_of(fields, path)
    if first is None or len(first.shape) != 2 or stated in first.shape:
        return
    raise RefusedAdapter(
        f"adapter_config.json states rank {stated} for {shown(path)}, but {first.part} has the "
        f"shape {list(first.shape)}. Correct r or rank_pattern."
    )


def _rank_of(fields: Mapping[str, Any], path: str) -> int:
    pattern = fields.get("rank_pattern") or {}
    rank: int = pattern.get(get_pattern_key(pattern.keys(), path), fields.get("r", 8))
    return rank


def _scale_of(fields: Mapping[str, Any], path: str) -> float:
    pattern = fields.get("alpha_pattern") or {}
    alpha = pattern.get(get_pattern_key(pattern.keys(), path), fields.get("lora_alpha", 8))
    rank = _rank_of(fields, path)
    return float(alpha / (math.sqrt(rank) if fields.get("use_rslora") else rank))


def _update_of(
    fields: Mapping[str, Any], path: str, parts: Mapping[str, Named], module: nn.Module
) -> Fold:
    """Return a low-rank update of a vocabulary matrix as a fold."""
    if fields.get("use_dora"):
        raise RefusedAdapter(f"DoRA of {shown(path)}, a matrix of the vocabulary, is not served.")
    rows, width = matrix_of(module).shape
    rank = _rank_of(fields, path)
    is_embedding = isinstance(module, nn.Embedding)
    names = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A", "lora_B")
    if any(name not in parts for name in names):
        raise RefusedAdapter(f"The adapter lacks {' or '.join(names)} of {shown(path)}.")
    a, b = (parts[name] for name in names)
    require_shape(a, (rank, rows if is_embedding else width))
    require_shape(b, (width if is_embedding else rows, rank))
    scale = _scale_of(fields, path)
    return Fold((a.tensor.name, b.tensor.name), scale, is_embedding=is_embedding)


def _fold_vocabulary(
    fields: Mapping[str, Any],
    groups: Groups,
    model: PreTrainedModel,
    kept: Mapping[str, str],
    folds: dict[str, list[Fold]],
) -> None:
    """Add the folds of whole vocabulary matrices and of single tokens; refuse all other tensors."""
    tied = _tied_head(model)
    for path, parts in groups.items():
        for part, each in parts.items():
            is_kept = f"{PREFIX}{path}.{part}" in kept
            if is_kept or _is_lora(part):
                continue
            module = model.get_submodule(path)
            if part not in ("weight", "base_layer.weight", "token_adapter") or not is_vocabulary(
                model, module
            ):
                raise unexpected(each, _why_unexpected(part))
            fold = _rows_or_whole(fields, each, module)
            # PEFT keeps a tied head equal to the embedding, except for its low-rank update
            for changed in {path, tied or path}:
                folds.setdefault(changed, []).insert(0, fold)


def _rows_or_whole(fields: Mapping[str, Any], each: Named, module: nn.Module) -> Fold:
    rows, width = matrix_of(module).shape
    if each.part != "token_adapter":
        hint = f" Its vocabulary has {each.shape[0]} tokens, that of the base {rows}."
        require_shape(each, (rows, width), hint)
        return Fold((each.tensor.name,))
    indices = fields.get("trainable_token_indices")
    if isinstance(indices, dict):
        named = [found for name, found in indices.items() if is_named(each.path, name)]
        indices = named[0] if named else None
    if not indices or max(indices) >= rows or len(set(indices)) != len(indices):
        raise RefusedAdapter("trainable_token_indices do not fit the vocabulary of the base.")
    require_shape(each, (len(indices), width))
    return Fold((each.tensor.name,), rows=tuple(indices))


def _tied_head(model: PreTrainedModel) -> str | None:
    """Return the path of the output head if it shares the matrix of the embedding."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or not model.config.tie_word_embeddings:
        return None
    assert embedding is not None
    return next((path for path, module in model.named_modules() if module is head), None)


def _target_names(
    fields: Mapping[str, Any], model: PreTrainedModel, paths: list[str], saved: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the config's names if they mean exactly the adapted layers, else the full paths."""
    names = fields.get("target_modules")
    linear = linear_paths(model)
    if isinstance(names, list):
        used = [name for name in names if any(is_named(path, name) for path in linear)]
        meant = {p for p in targeted_paths(linear, used) if not is_inside(p, saved)}
        if meant == set(paths):
            return tuple(used)
    return tuple(path for path in linear if path in paths)


def _used(patterns: Mapping[str, Any] | None, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Return the patterns that match a layer; PEFT ignores the others."""
    return {
        pattern: value
        for pattern, value in (patterns or {}).items()
        if any(get_pattern_key([pattern], path) == pattern for path in layers)
    }


def _peft_fields(
    fields: Mapping[str, Any], paths: list[str], saved: tuple[str, ...], layers: Any
) -> dict[str, Any]:
    return {
        **fields,
        "target_modules": paths,
        "modules_to_save": list(saved) or None,
        "bias": "none",
        "fan_in_fan_out": any(isinstance(layer, Conv1D) for layer in layers),
        "lora_dropout": 0.0,
    }


def _peft_names(groups: Groups) -> dict[str, str]:
    full = {**_MATRICES, "token_adapter": "token_adapter.trainable_tokens_delta"}
    return {
        f"{PREFIX}{path}.{full.get(part, part)}": each.tensor.name
        for path, parts in groups.items()
        for part, each in parts.items()
    }
