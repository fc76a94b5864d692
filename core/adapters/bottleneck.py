"""A bottleneck adapter on the output h of a frozen module: y = h + act(h Dᵀ + c) Uᵀ + b.

U and b start at zero, so that training starts exactly from the base; Houlsby et al. start close to
it. One autograd function saves the narrow activations and h, and adds the residual and the bias in
the product with U.
"""

# T tokens, E hidden size, R inner width, S = R + 1

from dataclasses import dataclass
from typing import Any, Literal, assert_never

import torch
from torch import Tensor, nn

from core.adapters.delta import AdapterLayer, Delta

Activation = Literal["relu", "gelu", "silu"]


class Bottleneck(AdapterLayer):
    """`base_layer` with an adapter of `width` on its output of `size` features.

    The output is a tensor or the first of a tuple. Adapters are fp32, or fp64 like the base, and
    run in the dtype of the output.
    """

    def __init__(
        self,
        base_layer: nn.Module,
        size: int,
        width: int,
        activation: Activation,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.activation = activation
        drawn_on = "meta" if device.type == "meta" else "cpu"
        self.adapter_down = nn.Linear(size, width, device=drawn_on)
        self.adapter_up = nn.Linear(width, size, device=drawn_on)
        for zero in (self.adapter_down.bias, self.adapter_up.weight, self.adapter_up.bias):
            nn.init.zeros_(zero)
        self.adapter_down.to(device, dtype)
        self.adapter_up.to(device, dtype)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        output = self.base_layer(*arguments, **named)
        if isinstance(output, tuple):
            return self.adapt(output[0]), *output[1:]
        return self.adapt(output)

    def adapt(self, h: Tensor) -> Tensor:
        """Return the adapted output of the module."""
        down, up = self.adapter_down, self.adapter_up
        weights = down.weight, down.bias, up.weight, up.bias
        y: Tensor = _BottleneckProduct.apply(h, *weights, self.activation)
        return y

    def delta(self, dtype: torch.dtype) -> Delta:
        return BottleneckDelta(self)

    def merged(self) -> dict[str, Tensor]:
        raise ValueError("a bottleneck is an additional layer, which has no weight in the base")


@dataclass(frozen=True)
class BottleneckDelta:
    """The bottleneck's residual layer on the output of the module."""

    adapter: Bottleneck

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.adapter.adapt(y)


class _BottleneckProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        down_RE: Tensor,
        down_R: Tensor,
        up_ER: Tensor,
        up_E: Tensor,
        activation: Activation,
    ) -> Tensor:
        ctx.adapter_dtype, ctx.activation = down_RE.dtype, activation
        h_TE, down_RE = h.reshape(-1, h.shape[-1]), down_RE.to(h.dtype)
        inner_TR = torch.addmm(down_R.to(h.dtype), h_TE, down_RE.t())
        # a last feature that is always 1 carries the bias through the product
        active_TS = torch.cat((_activate(inner_TR, activation), inner_TR.new_ones(len(h_TE), 1)), 1)
        up_ES = torch.cat((up_ER, up_E[:, None]), dim=1).to(h.dtype)
        ctx.save_for_backward(h_TE, inner_TR, active_TS, down_RE, up_ES)
        return torch.addmm(h_TE, active_TS, up_ES.t()).view(h.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h_TE, inner_TR, active_TS, down_RE, up_ES = ctx.saved_tensors
        grad_TE = grad.reshape(-1, grad.shape[-1])
        # (aᵀ dy)ᵀ and not dyᵀ a: on a CPU the long side belongs on the right
        grad_up_SE = torch.mm(active_TS.t(), grad_TE).to(ctx.adapter_dtype)
        grad_active_TR = torch.mm(grad_TE, up_ES[:, :-1])
        grad_inner_TR = _activation_gradient(grad_active_TR, inner_TR, ctx.activation)
        grad_down_RE = torch.mm(grad_inner_TR.t(), h_TE).to(ctx.adapter_dtype)
        grad_bias_R = grad_inner_TR.sum(dim=0, dtype=ctx.adapter_dtype)
        grad_h = None
        if ctx.needs_input_grad[0]:
            grad_h = torch.addmm(grad_TE, grad_inner_TR, down_RE).view(grad.shape)
        # a view of the bias's gradient would keep all of the matrix's until the next step
        grad_bias_E = grad_up_SE[-1].clone()
        return grad_h, grad_down_RE, grad_bias_R, grad_up_SE[:-1].t(), grad_bias_E, None


def _activate(x: Tensor, activation: Activation) -> Tensor:
    match activation:
        case "relu":
            return torch.relu(x)
        case "gelu":
            return nn.functional.gelu(x)
        case "silu":
            return nn.functional.silu(x)
        case _:
            assert_never(activation)


def _activation_gradient(grad: Tensor, x: Tensor, activation: Activation) -> Tensor:
    """Return the gradient with respect to `x`, the input of the activation."""
    match activation:
        case "relu":
            return torch.ops.aten.threshold_backward(grad, x, 0)
        case "gelu":
            return torch.ops.aten.gelu_backward(grad, x)
        case "silu":
            return torch.ops.aten.silu_backward(grad, x)
        case _:
            assert_never(activation)
