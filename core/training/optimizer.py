"""AdamW over the trained weights: ordinary, paged, or paged with an 8-bit state.

Trained weights in 16 bits (of the strategy `full`) have an fp32 master copy, which takes the steps;
the weights are cast from it. Their gradients are accumulated in fp32, too. In fp16, the loss is
scaled so that its gradients fit (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).
"""

import re
from collections.abc import Callable
from typing import Any, assert_never

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core.adapters.adapted import AdaptedModel
from core.catalog.strategies import STRATEGIES
from core.spec.job import JobSpec
from core.spec.training import OptimizerName

_UNDECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
"""Parts of the names of weights that have no weight decay in Hugging Face's trainer."""


class TrainingOptimizer:
    """One optimizer step is: `scale(loss).backward()` per micro-batch, `clip`, `step`."""

    def __init__(
        self,
        trainable: dict[str, nn.Parameter],
        make: Callable[[dict[str, nn.Parameter]], Optimizer],
        scaler: torch.amp.GradScaler,
    ) -> None:
        self._trainable = trainable
        self._masters: dict[str, nn.Parameter] = {}
        for name, parameter in trainable.items():
            if parameter.dtype in (torch.bfloat16, torch.float16):
                self._masters[name] = nn.Parameter(parameter.detach().float())
                parameter.grad_dtype = torch.float32
        self._weights = trainable | self._masters
        self._inner = make(self._weights)
        self._scaler = scaler

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss for `backward`: scaled in fp16, otherwise unchanged."""
        return self._scaler.scale(loss)

    def clip(self, max_norm: float) -> float:
        """Unscale all gradients, then clip their joint norm to `max_norm`.

        Returns the norm before clipping. In fp16, `step` skips the update if it is not finite.
        """
        self._assign_gradients()
        self._scaler.unscale_(self._inner)
        weights = list(self._weights.values())
        return float(nn.utils.clip_grad_norm_(weights, max_norm, foreach=True))

    def step(self, rate: float) -> bool:
        """Take one step at learning rate `rate` and clear the gradients.

        Returns False if the update was skipped because the gradients overflowed in fp16; the scale
        is lower from then on.
        """
        for group in self._inner.param_groups:
            group["lr"] = rate
        self._assign_gradients()
        scale = self._scaler.get_scale()
        self._scaler.step(self._inner)
        self._scaler.update()
        self.zero()
        self._refresh()
        return self._scaler.get_scale() >= scale

    def zero(self) -> None:
        """Clear the gradients."""
        for weights in (self._trainable, self._masters):
            for weight in weights.values():
                weight.grad = None

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, except the model's weights and the rate.

        It is a tree of mappings with tensors and numbers. The next step changes these tensors, so
        copy them before.
        """
        return {
            "masters": dict(self._masters),
            "moments": {
                name: dict(self._inner.state[weight])
                for name, weight in self._weights.items()
                if weight in self._inner.state
            },
            "scaler": self._scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state that `state()` has returned; copies every tensor."""
        self._scaler.load_state_dict(state["scaler"])
        with torch.no_grad():
            for name, master in self._masters.items():
                master.copy_(state["masters"][name])
        self._refresh()
        positions = {
            id(weight): (group, weight, group_index, index)
            for group_index, group in enumerate(self._inner.param_groups)
            for index, weight in enumerate(group["params"])
        }
        for name, moments in state["moments"].items():
            weight = self._weights[name]
            if hasattr(self._inner, "init_state"):  # of bitsandbytes, which sets up paged memory
                self._inner.init_state(*positions[id(weight)])
            own = self._inner.state[weight]
            for key, value in moments.items():
                if isinstance(own.get(key), Tensor):
                    own[key].copy_(value)
                elif isinstance(value, Tensor):
                    own[key] = value.detach().to(weight.device, copy=True)
                else:
                    own[key] = value

    def _assign_gradients(self) -> None:
        """Assign the gradients of the 16-bit weights to their masters."""
        for name, master in self._masters.items():
            master.grad = self._trainable[name].grad

    def _refresh(self) -> None:
        """Cast the masters to the 16-bit weights."""
        with torch.no_grad():
            for name, master in self._masters.items():
                self._trainable[name].copy_(master)


def build_optimizer(adapted: AdaptedModel, spec: JobSpec, dtype: torch.dtype) -> TrainingOptimizer:
    """Return the job's AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101).

    `dtype` is that of the base. Betas, epsilon and the weights without decay are those of Hugging
    Face's trainer. `auto` is paged AdamW for qlora and AdamW for all others. Paged states (Dettmers
    et al. 2023, https://arxiv.org/abs/2305.14314) move to host memory if the GPU is short of
    memory; without a GPU, `paged_adamw` is AdamW. Every step sets its own learning rate.
    """
    hyper = spec.training
    asked, usual = hyper.optimizer, STRATEGIES[spec.strategy.type].optimizer
    name = usual if asked == "auto" else asked
    device = adapted.parameters[0].device
    undecayed = _undecayed(adapted)

    def make(weights: dict[str, nn.Parameter]) -> Optimizer:
        decays = [weight for name, weight in weights.items() if name not in undecayed]
        stays = [weight for name, weight in weights.items() if name in undecayed]
        shares = (decays, hyper.weight_decay), (stays, 0.0)
        groups = [{"params": some, "weight_decay": share} for some, share in shares if some]
        if name == "adamw" or (name == "paged_adamw" and device.type == "cpu"):
            return torch.optim.AdamW(groups, lr=0.0, fused=True)
        # imported here, because the import queries the GPU's capability
        import bitsandbytes

        bits, paged = _state_bits(name), device.type != "cpu"
        return bitsandbytes.optim.AdamW(groups, 0.0, optim_bits=bits, is_paged=paged)

    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    return TrainingOptimizer(adapted.trainable, make, scaler)


def _state_bits(name: OptimizerName) -> int:
    """Return the number of bits of each value in the optimizer's state."""
    match name:
        case "adamw" | "paged_adamw":
            return 32
        case "paged_adamw_8bit":
            return 8
        case _:
            assert_never(name)


def _undecayed(adapted: AdaptedModel) -> set[str]:
    """Return the names of weights without decay, as in Hugging Face's trainer: biases and norms."""
    norms = {
        id(parameter)
        for module in adapted.model.modules()
        if isinstance(module, nn.LayerNorm)
        for parameter in module.parameters()
    }
    return {
        name
        for name, parameter in adapted.trainable.items()
        if id(parameter) in norms or _UNDECAYED.search(name.lower())
    }
