"""Nested state with tensors in it, such as an optimiser's, as tensors by name and plain JSON.

In the JSON a tensor is `{"tensor": name}`, a mapping `{"mapping": [[key, value], …]}` so that
keys keep their types, a tuple `{"tuple": […]}`; lists, numbers, strings and None are themselves.
"""

from typing import Any

from torch import Tensor


def take_apart(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return the tree as JSON and its tensors on the CPU: the live ones, where they are there.

    A tensor that shares its memory with another one is copied.
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
                raise TypeError(f"{type(value).__name__} has no place in a saved state.")

    return plain(tree), tensors


def put_together(plain: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the tree that `take_apart` took apart, its tensors on the CPU."""
    match plain:
        case {"tensor": name}:
            return tensors[name]
        case {"mapping": entries}:
            return {
                put_together(key, tensors): put_together(value, tensors) for key, value in entries
            }
        case {"tuple": entries}:
            return tuple(put_together(entry, tensors) for entry in entries)
        case list():
            return [put_together(entry, tensors) for entry in plain]
        case _:
            return plain
