"""The names of an adapter's tensors: what each belongs to in the model, whoever wrote the file.

PEFT's own names are `base_model.model.<path>.lora_A.weight`. Other programs, and older versions,
leave out the prefix, or keep the name of the adapter or of a wrapper. PEFT then ignores the tensor
without an error, and the adapter does nothing. Here each name has exactly one meaning, or the
adapter is refused.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from core.adapter_files.refusal import RefusedAdapter, shown
from core.spec.adapter_file import TensorInfo
from core.spec.nearest import did_you_mean

PROMPT = "prompt_embeddings"
"""The name of all virtual tokens."""

_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"})
"""Parts of paths that torch.compile, FSDP, checkpointing and DataParallel add."""
_PARTS = (
    "lora_A",
    "lora_B",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "ia3_l",
    "token_adapter",
    "base_layer",
)
"""What follows the path of a module in a tensor's name."""
_ADAPTER_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Named:
    """A tensor, the module that it belongs to, and its part of the adapter at that module."""

    path: str
    part: str
    """One of `_PARTS`, or the name of a weight of the module itself, such as `weight`."""
    tensor: TensorInfo

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape


def named_tensors(
    tensors: Iterable[TensorInfo], modules: Collection[str]
) -> tuple[tuple[Named, ...], tuple[str, ...]]:
    """Return what each tensor is in a model with these paths of modules, and warnings.

    Raises RefusedAdapter for a name that no module has, or two tensors with one meaning.
    """
    found: dict[tuple[str, str], Named] = {}
    completed: list[str] = []
    for tensor in tensors:
        path, part = _split(tensor.name)
        resolved = path if path == PROMPT else _resolved(path, tensor.name, modules)
        if resolved != path:
            completed.append(path)
        key = resolved, part
        if key in found:
            raise RefusedAdapter(
                f"{shown(tensor.name)} and {shown(found[key].tensor.name)} are the same part of "
                "the model."
            )
        found[key] = Named(resolved, part, tensor)
    warnings = [
        f"{len(completed)} tensors name their modules without the beginning of the path, such as "
        f"{shown(name)}. PEFT would ignore them."
        for name in completed[:1]
    ]
    return tuple(found.values()), tuple(warnings)


def _split(name: str) -> tuple[str, str]:
    """Return the path of the module, as the file has it, and the part."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while parts[:2] == ["base_model", "model"]:
        parts = parts[2:]
    if parts[:1] == ["base_model"]:
        parts = parts[1:]
    if parts == [PROMPT] or parts[:1] == ["prompt_encoder"]:
        return PROMPT, PROMPT
    for index, part in enumerate(parts):
        if part in _PARTS:
            return ".".join(parts[:index]), _part(part, parts[index + 1 :], name)
        if part == "modules_to_save":
            rest = parts[index + 1 :]
            # `modules_to_save.default.weight`: the name of the adapter is no part of the module
            inside = rest[1:] if len(rest) > 1 else rest
            return ".".join([*parts[:index], *inside[:-1]]), inside[-1] if inside else ""
    return ".".join(parts[:-1]), parts[-1] if parts else ""


def _part(part: str, rest: list[str], name: str) -> str:
    """Return the canonical part; `rest` may have the adapter's name and `weight`."""
    if part == "base_layer":
        return f"base_layer.{'.'.join(rest)}"
    if part == "token_adapter":
        rest = rest[1:]
    known = [each for each in rest if each != "weight"]
    if len(known) > 1 or not all(map(_ADAPTER_NAME.fullmatch, known)):
        raise RefusedAdapter(f"{shown(name)} is not the name of a tensor of an adapter.")
    return part


def _resolved(path: str, name: str, modules: Collection[str]) -> str:
    """Return the module with this path, or the only one whose path ends with it."""
    if path in modules:
        return path
    ending = [each for each in modules if path and each.endswith(f".{path}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        why = f"could be {', '.join(map(shown, sorted(ending)[:3]))}"
    else:
        why = f"is no module of this base.{did_you_mean(path, list(modules), cutoff=0.8)}"
    raise RefusedAdapter(f"{shown(name)} in the adapter: {shown(path)} {why}")
