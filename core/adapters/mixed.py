"""Runs many adapters in one batch on one base.

The rows of a batch are sorted by adapter. The base's modules run once for all rows; then each
adapter changes its rows.

Source: Sheng et al. 2023, https://arxiv.org/abs/2311.03285 (S-LoRA).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.delta import Delta, delta_of
from core.adapters.lora import LoraLinear
from core.adapters.lora_groups import lora_rows
from core.adapters.lora_rows import LoraLayer, LoraRows
from core.adapters.lora_slots import LoraSlots, slot_rank
from core.adapters.segments import Segments
from core.catalog.families import family_of
from core.models.frozen import joined_product, packed_product
from core.models.shared_input import SharedInput


class MixedModel:
    """A base and the deltas of any number of adapters, by name.

    A `Site` wraps each module of the base that an adapter changes, and has the deltas of all
    adapters for it.
    """

    def __init__(self, model: PreTrainedModel, *, prepack: bool = False) -> None:
        """With `prepack`, linear layers on a CPU run on prepacked copies of their weights."""
        self.model = model
        self._parents = _parents(model)
        self._sites: dict[str, Site] = {}
        self._current = _Current()
        family = family_of(model.config.model_type)
        self._input_of = partial(_input_of, family.same_input)
        self._plans: dict[bool, tuple[Segments, _Plan]] = {}
        """The last plan by `together`: a decoding batch has the same plan for many steps."""
        self._adapters: dict[str, _Adapter] = {}
        self._slots: dict[int, LoraSlots] = {}
        """By rank."""
        self._joined: list[SharedInput] = []
        """The products of the base's layers with the same input."""
        if prepack:
            self._prepack()

    def _prepack(self) -> None:
        """Let every linear layer run on a prepacked copy, joined with those of the same input."""
        layers: dict[str, dict[str, nn.Linear]] = {}
        for path, module in self.model.named_modules():
            if type(module) is nn.Linear:
                layers.setdefault(self._input_of(path), {})[path] = module
        for same_input in layers.values():
            joined = joined_product([(each.weight, each.bias) for each in same_input.values()])
            if joined is not None:
                self._joined.append(joined)
            for number, (path, layer) in enumerate(same_input.items()):
                self._site(path).product = (
                    packed_product(layer.weight, layer.bias)
                    if joined is None
                    else partial(joined.product, layer=number)
                )

    def add(self, name: str, adapted: AdaptedModel) -> None:
        """Add an adapter of this model, which must not be installed.

        Copies the weights of low-rank updates, and keeps the modules of all others.
        """
        self._plans.clear()  # they refer to weights that may be reallocated
        dtype, layers = self.model.dtype, adapted.replaced
        low_rank = {path: layer for path, layer in layers.items() if type(layer) is LoraLinear}
        slots = None
        if low_rank:
            rank = slot_rank(low_rank)
            slots = self._slots.setdefault(rank, LoraSlots(rank, self._input_of))
            slots.put(name, low_rank, dtype)
        others = {path: layer for path, layer in layers.items() if path not in low_rank}
        self._adapters[name] = _Adapter(tuple(others), slots)
        for path in low_rank:
            self._site(path)
        for path, layer in others.items():
            self._site(path).deltas[name] = delta_of(layer, dtype)

    def discard(self, name: str) -> None:
        """Remove an adapter."""
        self._plans.clear()
        adapter = self._adapters.pop(name)
        if adapter.slots is not None:
            adapter.slots.forget(name)
        for path in adapter.others:
            del self._sites[path].deltas[name]

    @contextmanager
    def bare(self) -> Iterator[PreTrainedModel]:
        """Yield the base without adapters, to attach a new one to it."""
        for path, site in self._sites.items():
            parent, attribute = self._parents[path]
            setattr(parent, attribute, site.base)
        try:
            yield self.model
        finally:
            for path, site in self._sites.items():
                parent, attribute = self._parents[path]
                setattr(parent, attribute, site)

    @contextmanager
    def running(self, segments: Segments, *, together: bool = True) -> Iterator[None]:
        """Run the rows of `segments` with their adapters inside the block.

        With `together`, low-rank updates of many adapters are applied at once. Without it, each
        adapter is applied separately, which is slower and serves as the reference.
        """
        self._current.plan = self._plan(segments, together)
        try:
            yield
        except BaseException:
            self._plans.clear()  # they may have cached inputs of layers
            for joined in self._joined:
                joined.forget()
            raise
        finally:
            self._current.plan = None

    def _plan(self, segments: Segments, together: bool) -> "_Plan":
        known = self._plans.get(together)
        if known is not None and known[0] == segments:
            return known[1]
        low_rank = self._lora_rows(segments, together)
        plan = _Plan(segments, low_rank, self._adapters, self._sites)
        self._plans[together] = segments, plan
        return plan

    def _lora_rows(self, segments: Segments, together: bool) -> list[LoraRows]:
        by_rank: dict[int, list[int]] = {}
        for index, name in enumerate(segments.adapters):
            slots = None if name is None else self._adapters[name].slots
            if slots is not None:
                by_rank.setdefault(slots.rank, []).append(index)
        return [
            rows
            for rank, indices in by_rank.items()
            for rows in lora_rows(segments, self._slots[rank], indices, together=together)
        ]

    def _site(self, path: str) -> "Site":
        if path not in self._sites:
            parent, attribute = self._parents[path]
            site = Site(path, getattr(parent, attribute), self._current)
            site.train(self.model.training)
            setattr(parent, attribute, site)
            self._sites[path] = site
        return self._sites[path]


@dataclass(frozen=True)
class _Adapter:
    """The storage of an adapter."""

    others: tuple[str, ...]
    """The paths of the modules that it changes by other than low-rank updates."""
    slots: LoraSlots | None
    """The slots of its low-rank updates."""


@dataclass(frozen=True)
class _Changes:
    """The changes of one module's output: low-rank updates, then all others."""

    low_rank: Sequence[LoraLayer]
    others: Sequence[tuple[Delta, int, int]]
    """Each with its rows [start, end) of the batch."""


class _Plan(dict[str, _Changes | None]):
    """The changes of each module for a batch, by path, computed on first access."""

    def __init__(
        self,
        segments: Segments,
        low_rank: Sequence[LoraRows],
        adapters: Mapping[str, _Adapter],
        sites: Mapping[str, "Site"],
    ) -> None:
        self.rows = segments.starts[-1]
        self._low_rank = low_rank
        self._sites = sites
        self._others = [
            (name, start, end)
            for name, (start, end) in zip(segments.adapters, pairwise(segments.starts), strict=True)
            if name is not None and adapters[name].others
        ]

    def __missing__(self, path: str) -> _Changes | None:
        deltas = self._sites[path].deltas
        low_rank = [layer for rows in self._low_rank if (layer := rows.layer(path)) is not None]
        others = [(deltas[name], start, end) for name, start, end in self._others if name in deltas]
        self[path] = _Changes(low_rank, others) if low_rank or others else None
        return self[path]


@dataclass
class _Current:
    """The plan of the running batch, shared by all sites."""

    plan: _Plan | None = None


class Site(nn.Module):
    """A module of the base with the adapters' deltas for it.

    Its output must be a tensor with contiguous rows, or a tuple that begins with one. The input has
    shape (1, rows, …) or (rows, …).
    """

    def __init__(self, path: str, base: nn.Module, current: _Current) -> None:
        super().__init__()
        self.base = base
        self.product: Callable[[Tensor], Tensor] | None = None
        """Computes the output instead of `base`, if set."""
        self.deltas: dict[str, Delta] = {}
        """The deltas that are not low-rank updates, by adapter name."""
        self._path = path
        self._current = current

    def __getattr__(self, name: str) -> Any:
        """Forward attributes such as `weight` to the base's module."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        output = (self.product or self.base)(*arguments, **named)
        plan = self._current.plan
        changes = None if plan is None else plan[self._path]
        if plan is None or changes is None:
            return output
        x = arguments[0] if arguments else next(iter(named.values()))
        if isinstance(output, tuple):
            return _changed(x, output[0], plan.rows, changes), *output[1:]
        return _changed(x, output, plan.rows, changes)


def _changed(x: Tensor, output: Tensor, rows: int, changes: _Changes) -> Tensor:
    """Return the output of a module with the changes of the adapters to their rows."""
    # 1. View the output as one row per token, (T, O).
    y = output.view(rows, -1)
    # 2. Add the low-rank updates in place. The product is x A, which the first of the layers that
    #    read this x computes for all of them.
    for shared, column, add in changes.low_rank:
        add(shared.product(x, column), y)
    if not changes.others:
        return output
    # 3. All other changes replace rows [start, end). If a module returns its input, copy it first,
    #    because other modules read it too.
    if y.data_ptr() == x.data_ptr():
        y = y.clone()
    x = x.reshape(rows, -1) if x.is_floating_point() else x.reshape(rows)  # (T, I), or T token ids
    for delta, start, end in changes.others:
        own = y[start:end]
        adapted = delta(x[start:end], own)
        if adapted is not own:
            own.copy_(adapted)
    return y.view(output.shape)


def _input_of(same_input: Sequence[Sequence[str]], path: str) -> str:
    """Return the name of a layer's input: the path of the first layer that reads the same input."""
    parent, _, name = path.rpartition(".")
    first = next((names[0] for names in same_input if name in names), name)
    return f"{parent}.{first}"


def _parents(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return the parent and the attribute name of each module, by path."""
    modules = dict(model.named_modules(remove_duplicate=False))
    parents = {}
    for path in modules:
        if path:
            parent, _, attribute = path.rpartition(".")
            parents[path] = modules[parent], attribute
    return parents
