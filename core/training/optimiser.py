"""AdamW over the trained weights: ordinary, paged, or paged with a state of eight bits.

Trained weights of 16 bits (a base trained whole) have an fp32 master here, which takes the steps
and which they follow; their gradients are gathered in fp32 too. In fp16 the loss is scaled so that
its gradients fit (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).
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
"""Parts of the names of weights that Hugging Face's trainer does not decay."""


class TrainingOptimiser:
    """One optimiser step is: `scale(loss).backward()` per micro-batch, `clip`, `step`."""

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
        """Return the loss to call `backward` on: scaled in fp16, else as it is."""
        return self._scaler.scale(loss)

    def clip(self, max_norm: float) -> float:
        """Unscale all gradients, then bring them to a common norm of at most `max_norm`.

        Returns the norm before; one that is not finite in fp16 means that `step` will skip.
        """
        self._hand_over()
        self._scaler.unscale_(self._inner)
        weights = list(self._weights.values())
        return float(nn.utils.clip_grad_norm_(weights, max_norm, foreach=True))

    def step(self, rate: float) -> bool:
        """Take one step at learning rate `rate` and drop the gradients.

        Returns False when nothing was changed because the gradients did not fit fp16; the scale
        is lower from then on.
        """
        for group in self._inner.param_groups:
            group["lr"] = rate
        self._hand_over()
        scale = self._scaler.get_scale()
        self._scaler.step(self._inner)
        self._scaler.update()
        self.zero()
        self._refresh()
        return self._scaler.get_scale() >= scale

    def zero(self) -> None:
        """Drop the gradients."""
        for weights in (self._trainable, self._masters):
            for weight in weights.values():
                weight.grad = None

    def state(self) -> dict[str, Any]:
        """Return what the next step depends on beside the model's weights and the rate.

        A tree of mappings by name with tensors and numbers in it. The tensors are the live ones:
        copy them before the next step.
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
        """Go on as the optimiser would that `state` was taken from; copies every tensor."""
        self._scaler.load_state_dict(state["scaler"])
        with torch.no_grad():
            for name, master in self._masters.items():
                master.copy_(state["masters"][name])
        self._refresh()
        places = {
            id(weight): (group, weight, group_index, index)
            for group_index, group in enumerate(self._inner.param_groups)
            for index, weight in enumerate(group["params"])
        }
        for name, moments in state["moments"].items():
            weight = self._weights[name]
            if hasattr(self._inner, "init_state"):  # bitsandbytes': it sets up paged memory
                self._inner.init_state(*places[id(weight)])
            own = self._inner.state[weight]
            for key, value in moments.items():
                if isinstance(own.get(key), Tensor):
                    own[key].copy_(value)
                elif isinstance(value, Tensor):
                    own[key] = value.detach().to(weight.device, copy=True)
                else:
                    own[key] = value

    def _hand_over(self) -> None:
        """Give the masters the gradients of the weights that they stand for."""
        for name, master in self._masters.items():
            master.grad = self._trainable[name].grad

    def _refresh(self) -> None:
        """Bring the weights of 16 bits to where their masters are."""
        with torch.no_grad():
            for name, master in self._masters.items():
                self._trainable[name].copy_(master)


def build_optimiser(adapted: AdaptedModel, spec: JobSpec, dtype: torch.dtype) -> TrainingOptimiser:
    """Return AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101) as the job asks.

    `dtype` is the one that the base computes in. Betas, epsilon and which weights decay are those
    of Hugging Face's trainer. `auto` is paged AdamW for qlora and AdamW for all others. Paged
    states (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314) move to host memory when the
    GPU's is short; where there is no GPU nothing can be paged, and `paged_adamw` is AdamW. Each
    step brings its own learning rate.
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
        # here, because importing it asks a GPU for its abilities
        import bitsandbytes

        bits, paged = _state_bits(name), device.type != "cpu"
        return bitsandbytes.optim.AdamW(groups, 0.0, optim_bits=bits, is_paged=paged)

    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    return TrainingOptimiser(adapted.trainable, make, scaler)


def _state_bits(name: OptimizerName) -> int:
    """Return the number of bits of each value in the optimiser's state."""
    match name:
        case "adamw" | "paged_adamw":
            return 32
        case "paged_adamw_8bit":
            return 8
        case _:
            assert_never(name)


def _undecayed(adapted: AdaptedModel) -> set[str]:
    """Name the weights that Hugging Face's trainer does not decay: biases and norms."""
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
