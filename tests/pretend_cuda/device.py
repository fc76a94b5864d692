"""A pretend CUDA device: CPU tensors are real, CUDA tensors have shapes but no values.

Import this before torch, in a process of its own. Inside `with PretendCuda() as device`, forward,
backward and optimizer run as on a GPU; kernels, host syncs and bytes are counted, and a tensor on
the wrong device fails. A tensor that is read on the host has ones.
"""

from tests.pretend_cuda import library

library.load()

# ruff: noqa: E402
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.pretend_cuda import replaced
from tests.pretend_cuda.memory import Memory

aten = torch.ops.aten

CUDA = torch.device("cuda")

# fmt: off
WITHOUT_KERNEL = frozenset({
    "_fused_sdp_choice", "_has_compatible_shallow_copy_type", "_reshape_alias", "_unsafe_view",
    "alias", "as_strided", "chunk", "detach", "device", "diagonal", "empty", "empty_like",
    "empty_strided", "expand", "is_same_size", "lift_fresh", "narrow", "new_empty",
    "new_empty_strided", "permute", "record_stream", "resize_", "select", "set_", "slice",
    "split", "split_with_sizes", "squeeze", "sym_size", "t", "transpose", "unbind", "unflatten",
    "unfold", "unsqueeze", "view",
})
# fmt: on
"""Operations that launch nothing on a GPU."""

WAITS_FOR_ITS_SIZE = frozenset({"nonzero", "masked_select", "unique_consecutive", "_unique2"})


class PretendCuda(TorchDispatchMode):
    """Counts what runs on the device, since the start of the block or the last `reset`."""

    def __init__(self) -> None:
        super().__init__()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.memory = Memory()
        self.reset()

    def reset(self) -> None:
        self.kernels: Counter[str] = Counter()
        """By name of the operation."""
        self.syncs: Counter[str] = Counter()
        """How often the host waited for the device, by reason."""
        self.memory.reset_peak()

    def __enter__(self) -> Self:
        self._lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        replaced.current.append(self.wait)
        return super().__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        replaced.current.pop()
        torch._C._set_only_lift_cpu_tensors(self._lifted)

    def wait(self, reason: str) -> None:
        """Count a wait of the host."""
        self.syncs[reason] += 1

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = operation._schema.name.split("::")[1]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        is_asked = kwargs.get("device") is not None
        creates = is_asked and torch.device(kwargs["device"]).type == "cuda"
        if not creates and not any(isinstance(tensor, FakeTensor) for tensor in given):
            return operation(*args, **kwargs)
        on_host = self._on_host(operation, name, args, kwargs)
        if on_host is not None:
            return on_host
        self._count_waits(name, args, given, creates)
        with self._fake:
            output = operation(*args, **kwargs)
        on_device = [leaf for leaf in tree_leaves(output) if isinstance(leaf, FakeTensor)]
        if creates or any(each.device.type == "cuda" for each in (*given, *on_device)):
            if name not in WITHOUT_KERNEL:
                self.kernels[name] += 1
            for tensor in on_device:
                self.memory.note(tensor)
        return output

    def _on_host(self, operation: Any, name: str, args: Sequence[Any], kwargs: Any) -> Any:
        """Return what the host reads, which has no values here; None for other operations."""
        if operation is aten._local_scalar_dense.default:
            self.wait("item")
            is_number = args[0].dtype.is_floating_point
            return True if args[0].dtype is torch.bool else 1.0 if is_number else 1
        if name == "_to_copy" and _is_on_device(args[0]) and _is_cpu(kwargs.get("device")):
            self.wait("copy to the host")
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if name == "copy_" and not isinstance(args[0], FakeTensor):
            self.wait("copy to the host")
            return args[0]
        return None

    def _count_waits(
        self, name: str, args: Sequence[Any], given: Sequence[Tensor], creates: bool
    ) -> None:
        if name in WAITS_FOR_ITS_SIZE:
            self.wait(name)
        source = args[1] if name == "copy_" else args[0] if name == "_to_copy" else None
        to_device = creates or (name == "copy_" and _is_on_device(args[0]))
        if isinstance(source, Tensor) and source.device.type == "cpu" and to_device:
            self.wait("copy to the device")
        is_index = name.lstrip("_").startswith("index")
        if is_index and any(each.device.type == "cpu" and each.dim() for each in given):
            self.wait("index on the host")


def _is_on_device(value: object) -> bool:
    return isinstance(value, FakeTensor) and value.device.type == "cuda"


def _is_cpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cpu"
