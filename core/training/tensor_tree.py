"""Nested state with tensors, such as an optimizer's, as named tensors and plain JSON.

In the JSON a tensor is `{"tensor": name}`, a mapping `{"mapping": [[key, value], …]}` so that
keys keep their types, a tuple `{"tuple": […]}`; lists, numbers, strings and None are themselves.
"""

from typing import Any

from torch import Tensor


def flatten(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return the tree as JSON, and its tensors on the CPU; tensors already there are not copied.

    Exception: a tensor that shares memory with another one is copied.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()

    def plain(value: Any) -> Any:
        match value:
            case Tensor():
                name = str(len(tensors))
                tensor = value.detach().cpu().contiguous()
                shared = tensor.untyped_storage().data_ptr() in seen
                tensors[name] = tensor.clone() if shared else tensor
                seen.add(tensors[name].untyped_storage().data_ptr())
                return {"tensor": name}
            case dict():
                return {"mapping": [[plain(key), plain(entry)] for key, entry in value.items()]}
            case tuple():
                return {"tuple": [plain(entry) for entry in value]}
            case list():
                return [plain(entry) for entry in value]
            case None | bool() | int() | float() | str():
                return value
            case _:
                raise TypeError(f"{type(value).__name__} cannot be saved in a state.")

    return plain(tree), tensors


def unflatten(plain: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the tree that `flatten` received, with tensors on the CPU."""
    match plain:
        case {"tensor": name}:
            return tensors[name]
        case {"mapping": entries}:
            return {unflatten(key, tensors): unflatten(value, tensors) for key, value in entries}
        case {"tuple": entries}:
            return tuple(unflatten(entry, tensors) for entry in entries)
        case list():
            return [unflatten(entry, tensors) for entry in plain]
        case _:
            return plain
