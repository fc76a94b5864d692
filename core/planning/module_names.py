"""Finds the layers and modules that the options of a strategy name, by the rules of PEFT."""

import re
from collections.abc import Iterable, Sequence

from core.errors import InvalidRequest
from core.planning.outline import LinearShape, Outline
from core.spec.nearest import nearest


def targeted_layers(
    outline: Outline, names: Iterable[str], copied: Iterable[str], *, all_named: bool
) -> dict[str, LinearShape]:
    """Return the linear layers that any of `names` ends, without those inside copied modules.

    With `all_named`, each name must match a layer.
    """
    names, copied = tuple(dict.fromkeys(names)), tuple(copied)
    param = "strategy.target_modules"
    for name in names if all_named else ():
        if not any(_is_named(path, name) for path in outline.linear):
            raise _unknown((name,), list(outline.linear), param)
    found = {
        path: layer
        for path, layer in outline.linear.items()
        if any(_is_named(path, name) for name in names)
        and not any(re.match(rf"(^|.*\.){re.escape(name)}($|\..*)", path) for name in copied)
    }
    if not found:
        raise _unknown(names, list(outline.linear), param)
    return found


def _is_named(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def copied_modules(outline: Outline, names: Sequence[str]) -> tuple[str, ...]:
    """Return the outermost modules whose paths end with any of `names`."""
    modules = outline.modules()
    found: dict[str, None] = {}
    for name in names:
        paths = [path for path in modules if name and path.endswith(name)]
        if not paths:
            raise _unknown((name,), modules, "strategy.modules_to_save")
        found |= dict.fromkeys(paths)
    return tuple(path for path in found if not any(path.startswith(f"{other}.") for other in found))


def _unknown(names: Sequence[str], paths: Sequence[str], param: str) -> InvalidRequest:
    parts = sorted({path.rpartition(".")[2] for path in paths})
    known = [part for part in parts if not part.isdigit()]
    near = nearest(names[0], known, most=3, cutoff=0.5) if names else []
    return InvalidRequest(
        f"The base model has no layer {', '.join(map(repr, names)) or 'to adapt'}. The closest "
        f"names are {', '.join(near or known)}.",
        param=param,
        code="unknown_target_module",
    )
